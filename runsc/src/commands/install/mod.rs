//! `install` and `uninstall`: our entry in the configuration of Docker, containerd and CRI-O.
//!
//! What stands in those files stays, comments and order too. Nothing is written when nothing changes; what
//! is written appears at once, by rename.

mod containerd;
mod docker;
mod file;

use super::print;
use crate::cli::{Install, Target};
use crate::error::{Failure, Outcome};
use file::Edited;
use std::path::{Path, PathBuf};

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The entry is there afterwards.
    In,
    /// It is not.
    Out,
}

/// The entry.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    /// Name of the runtime (Docker), the handler (containerd, CRI-O).
    name: String,
    /// The program.
    binary: PathBuf,
    /// Flags before the verb.
    args: Vec<String>,
}

/// `install` and `uninstall`.
pub(super) fn change(args: &Install, way: Way) -> Outcome<u8> {
    let entry = entry(args)?;
    let mut edits = Vec::new();
    for target in targets(args) {
        edits.extend(edit(args, target, &entry, way)?);
    }
    let mut changed = false;
    for edit in edits {
        if edit.is_unchanged() {
            print(&format!("{}: nothing to do\n", edit.path().display()))?;
            continue;
        }
        changed = true;
        if args.dry_run {
            print(&edit.diff())?;
        } else {
            edit.write()?;
            print(&format!("{}: {}\n", edit.path().display(), edit.done()))?;
        }
    }
    if changed && !args.dry_run {
        print("Restart or reload the daemon to have it read its configuration again.\n")?;
    }
    Ok(0)
}

fn entry(args: &Install) -> Outcome<Entry> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if args.name.is_empty() || !args.name.chars().all(fine) {
        return Err(Failure::new(format!("--name: {:?}: must be letters, digits and _-. only", args.name)));
    }
    let binary = match &args.binary {
        Some(path) if path.is_absolute() => path.clone(),
        Some(path) => {
            return Err(Failure::new(format!("--binary: {}: not an absolute path", path.display())));
        }
        None => std::env::current_exe().map_err(|error| {
            Failure::new(format!("--binary: this program's own path is unknown: {error}"))
        })?,
    };
    let mut list: Vec<String> = args.runtime_args.clone();
    list.extend(args.rest.iter().cloned());
    Ok(Entry { name: args.name.clone(), binary, args: list })
}

/// Those that were named; else those that are here; else Docker.
fn targets(args: &Install) -> Vec<Target> {
    if !args.targets.is_empty() {
        return args.targets.clone();
    }
    let named = [
        (Target::Docker, args.docker_config.is_some()),
        (Target::Containerd, args.containerd_config.is_some()),
        (Target::Crio, args.crio_config.is_some()),
    ];
    let here = [
        (Target::Docker, Path::new("/etc/docker").is_dir()),
        (Target::Containerd, Path::new("/etc/containerd").is_dir()),
        (Target::Crio, Path::new("/etc/crio").is_dir()),
    ];
    for list in [named, here] {
        let found: Vec<Target> = list.into_iter().filter(|(_, is)| *is).map(|(target, _)| target).collect();
        if !found.is_empty() {
            return found;
        }
    }
    vec![Target::Docker]
}

fn edit(args: &Install, target: Target, entry: &Entry, way: Way) -> Outcome<Vec<Edited>> {
    let path = |given: &Option<PathBuf>, usual: &str| given.clone().unwrap_or_else(|| PathBuf::from(usual));
    match target {
        Target::Docker => {
            let path = path(&args.docker_config, "/etc/docker/daemon.json");
            Ok(vec![Edited::of(&path, |text| docker::edit(text, entry, way))?])
        }
        Target::Containerd => {
            let path = path(&args.containerd_config, "/etc/containerd/config.toml");
            let (entry, wrapper) = wrapped(entry, way)?;
            let mut edits: Vec<Edited> = wrapper.into_iter().collect();
            edits.push(Edited::of(&path, |text| containerd::edit(text, &entry, way))?);
            Ok(edits)
        }
        Target::Crio => {
            let usual = format!("/etc/crio/crio.conf.d/99-{}.conf", entry.name);
            let path = path(&args.crio_config, &usual);
            let (entry, wrapper) = wrapped(entry, way)?;
            let mut edits: Vec<Edited> = wrapper.into_iter().collect();
            edits.push(match way {
                Way::In => Edited::of(&path, |text| containerd::edit_crio(text, &entry, way))?,
                Way::Out if args.crio_config.is_none() => Edited::removed(&path)?,
                Way::Out => Edited::of(&path, |text| containerd::edit_crio(text, &entry, way))?,
            });
            Ok(edits)
        }
    }
}

/// containerd's stock shim and CRI-O name a program and no flags: flags go into a script beside ours.
fn wrapped(entry: &Entry, way: Way) -> Outcome<(Entry, Option<Edited>)> {
    let path = entry.binary.with_file_name(format!("runsc-{}", entry.name));
    if entry.args.is_empty() || way == Way::Out {
        let left = way == Way::Out && path != entry.binary && file::is_script_of_ours(&path);
        let gone = if left { Some(Edited::removed(&path)?) } else { None };
        return Ok((entry.clone(), gone));
    }
    let words: Vec<String> = std::iter::once(entry.binary.to_string_lossy().into_owned())
        .chain(entry.args.iter().cloned())
        .map(|word| file::quoted(&word))
        .collect();
    let script = format!("{}exec {} \"$@\"\n", file::SCRIPT_HEAD, words.join(" "));
    let edited = Edited::script(&path, script)?;
    Ok((Entry { binary: path, args: Vec::new(), ..entry.clone() }, Some(edited)))
}

#[cfg(test)]
mod tests;
