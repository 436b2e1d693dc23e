//! containerd's config.toml (versions 2 and 3) and CRI-O's drop-in.

use super::{Entry, Way};
use crate::error::{Failure, Outcome};
use toml_edit::{DocumentMut, Item, Table, TableLike, value};

/// The CRI plugin's table, by version of the configuration.
const PLUGIN_2: &str = "io.containerd.grpc.v1.cri";
const PLUGIN_3: &str = "io.containerd.cri.v1.runtime";
/// The stock shim: it drives us as it drives runc.
const SHIM: &str = "io.containerd.runc.v2";

fn parse(text: &str) -> Outcome<DocumentMut> {
    text.parse::<DocumentMut>().map_err(|error| {
        let line = error.span().map(|span| {
            let until = text.get(..span.start).unwrap_or_default();
            format!("line {}: ", until.matches('\n').count() + 1)
        });
        let words = error.message().replace('\n', ", ");
        Failure::new(format!("malformed TOML: {}{words}", line.unwrap_or_default()))
    })
}

/// The text with, or without, our handler.
pub(super) fn edit(text: &str, entry: &Entry, way: Way) -> Outcome<String> {
    let mut doc = parse(text)?;
    let version = match doc.get("version") {
        Some(item) => Some(item.as_integer().ok_or_else(|| Failure::new("version: must be a number"))?),
        None => None,
    };
    let plugin = match version {
        Some(3) => PLUGIN_3,
        Some(2) => PLUGIN_2,
        None if is_old(&doc) => {
            return Err(Failure::new(
                "this is a version 1 configuration: `containerd config migrate` makes a newer one of it",
            ));
        }
        None => PLUGIN_2,
        Some(other) => {
            return Err(Failure::new(format!("version: {other} is not 2 or 3, the versions known here")));
        }
    };
    let path = ["plugins", plugin, "containerd", "runtimes"];
    match way {
        Way::In => {
            if version.is_none() {
                doc.insert("version", value(2));
            }
            let runtimes = open(doc.as_table_mut(), &path)?;
            let ours = child(runtimes, &entry.name, Shown::Yes)?;
            set(ours, "runtime_type", SHIM);
            let options = child(ours, "options", Shown::Yes)?;
            set(options, "BinaryName", &entry.binary.to_string_lossy());
        }
        Way::Out => take_out(doc.as_table_mut(), &path, &entry.name)?,
    }
    Ok(doc.to_string())
}

/// The same for CRI-O.
pub(super) fn edit_crio(text: &str, entry: &Entry, way: Way) -> Outcome<String> {
    let mut doc = parse(text)?;
    let path = ["crio", "runtime", "runtimes"];
    match way {
        Way::In => {
            let runtimes = open(doc.as_table_mut(), &path)?;
            let ours = child(runtimes, &entry.name, Shown::Yes)?;
            set(ours, "runtime_path", &entry.binary.to_string_lossy());
            set(ours, "runtime_type", "oci");
            set(ours, "runtime_root", "/run/gvisor-rs");
        }
        Way::Out => take_out(doc.as_table_mut(), &path, &entry.name)?,
    }
    Ok(doc.to_string())
}

/// Plugins without their long names, or the tables that version 1 had at the top.
fn is_old(doc: &DocumentMut) -> bool {
    let plugins = doc.get("plugins").and_then(Item::as_table_like);
    plugins.is_some_and(|plugins| plugins.iter().any(|(name, _)| !name.starts_with("io.containerd.")))
}

/// Whether a table gets a header of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    Yes,
    No,
}

fn child<'a>(table: &'a mut dyn TableLike, name: &str, shown: Shown) -> Outcome<&'a mut dyn TableLike> {
    let item = table.entry(name).or_insert_with(|| {
        let mut fresh = Table::new();
        fresh.set_implicit(shown == Shown::No);
        Item::Table(fresh)
    });
    item.as_table_like_mut().ok_or_else(|| Failure::new(format!("{name}: must be a table")))
}

fn open<'a>(table: &'a mut dyn TableLike, path: &[&str]) -> Outcome<&'a mut dyn TableLike> {
    let mut at = table;
    for name in path {
        at = child(at, name, Shown::No)?;
    }
    Ok(at)
}

/// Sets a string and leaves the comment behind it.
fn set(table: &mut dyn TableLike, name: &str, text: &str) {
    match table.get_mut(name).and_then(Item::as_value_mut) {
        Some(old) if old.as_str() == Some(text) => {}
        Some(old) => {
            let decor = old.decor().clone();
            *old = toml_edit::Value::from(text);
            *old.decor_mut() = decor;
        }
        None => {
            table.insert(name, value(text));
        }
    }
}

/// Removes an entry, and the tables above it that nothing else is in.
fn take_out(table: &mut dyn TableLike, path: &[&str], name: &str) -> Outcome<()> {
    let Some((first, rest)) = path.split_first() else {
        table.remove(name);
        return Ok(());
    };
    let Some(item) = table.get_mut(first) else { return Ok(()) };
    let had = item.as_table_like().is_some_and(|inner| !inner.is_empty());
    let inner = item.as_table_like_mut().ok_or_else(|| Failure::new(format!("{first}: must be a table")))?;
    take_out(inner, rest, name)?;
    let implicit = item.as_table().is_some_and(Table::is_implicit);
    if had && implicit && item.as_table_like().is_some_and(|inner| inner.is_empty()) {
        table.remove(first);
    }
    Ok(())
}
