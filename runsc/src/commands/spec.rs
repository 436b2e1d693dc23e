//! `spec`.

use crate::cli::SpecArgs;
use crate::error::{Doing, Failure, Outcome};
use crate::spec::default::default_spec;
use std::io::Write;
use std::path::Path;

/// `spec`: writes a config.json; one that is there is left alone.
pub(super) fn spec(args: &SpecArgs) -> Outcome<u8> {
    let path = args.bundle.as_deref().unwrap_or(Path::new(".")).join("config.json");
    let text = serde_json::to_string_pretty(&default_spec(args.rootless)).doing(|| "JSON")?;
    let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Failure::new(format!("{}: file exists. Remove it first", path.display())));
        }
        Err(error) => return Err(error).doing(|| path.display()),
    };
    file.write_all(format!("{text}\n").as_bytes()).doing(|| path.display())?;
    Ok(0)
}
