//! Reads `config.json`. A mistake is named by its field, with line and column.

use super::names::capability_bit;
use crate::error::{Doing, Failure, Outcome};
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// A bundle whose configuration was read.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Absolute path.
    pub(crate) path: PathBuf,
    /// Its `config.json`.
    pub(crate) spec: Spec,
}

/// Reads the bundle at `path` (default: the working directory).
pub(crate) fn load(path: Option<&Path>) -> Outcome<Bundle> {
    let path = match path {
        Some(path) => std::fs::canonicalize(path).doing(|| format!("--bundle {}", path.display()))?,
        None => std::env::current_dir().doing(|| "working directory")?,
    };
    let config = path.join("config.json");
    let text = match std::fs::read(&config) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::new(format!(
                "{}: no such file or directory: not a bundle",
                config.display()
            )));
        }
        Err(error) => return Err(error).doing(|| config.display()),
    };
    let spec: Spec = parse(&text, &config)?;
    check_version(spec.version()).map_err(|failure| failure.within(config.display()))?;
    Ok(Bundle { path, spec })
}

/// Parses JSON; an error says which field of `path`.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8], path: &Path) -> Outcome<T> {
    let error = match serde_json::from_slice::<T>(text) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    if let Some(value) = without_unknown_capabilities(text) {
        return Ok(value);
    }
    // Parsed again, slowly, to learn where.
    let mut reader = serde_json::Deserializer::from_slice(text);
    let located = serde_path_to_error::deserialize::<_, T>(&mut reader);
    let field = match &located {
        Err(located) if !error.is_syntax() && !error.is_eof() => located.path().to_string(),
        _ => String::new(),
    };
    let kind = if error.is_syntax() || error.is_eof() { "malformed JSON: " } else { "" };
    let mut words = error.to_string();
    if error.is_eof() {
        words = format!("the file ends too early, at line {} column {}", error.line(), error.column());
    }
    let field = if field.is_empty() || field == "." { field } else { format!("{field}: ") };
    Err(Failure::new(format!("{}: {kind}{}{words}", path.display(), field.trim_start_matches('.'))))
}

/// Capabilities that nobody knows are left out, with a warning, as runc has it: an engine may be younger
/// than the runtime. `None`: that is not what is wrong.
fn without_unknown_capabilities<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    let mut value: serde_json::Value = serde_json::from_slice(text).ok()?;
    let is_bundle = value.get("process").is_some();
    let sets = value.pointer_mut(if is_bundle { "/process/capabilities" } else { "/capabilities" })?;
    let mut unknown = Vec::new();
    for list in sets.as_object_mut()?.values_mut().filter_map(serde_json::Value::as_array_mut) {
        list.retain(|name| {
            let known = name.as_str().is_none_or(|name| capability_bit(name).is_some());
            if !known && !unknown.contains(name) {
                unknown.push(name.clone());
            }
            known
        });
    }
    let parsed = serde_json::from_value(value).ok()?;
    let unknown: Vec<_> = unknown.iter().filter_map(serde_json::Value::as_str).collect();
    crate::log::complain(&format!("warning: ignoring unknown capabilities {}", unknown.join(", ")));
    Some(parsed)
}

fn check_version(version: &str) -> Outcome<()> {
    let mut parts = version.split(['.', '-', '+']);
    let numbers: Vec<Option<u32>> = parts.by_ref().take(3).map(|part| part.parse().ok()).collect();
    match numbers.as_slice() {
        [Some(1), Some(_), Some(_)] => Ok(()),
        [Some(_), Some(_), Some(_)] => {
            Err(Failure::new(format!("ociVersion: {version:?} is not supported (1.0.0 to 1.2 is)")))
        }
        _ => Err(Failure::new(format!("ociVersion: {version:?} is not a version like 1.0.2"))),
    }
}
