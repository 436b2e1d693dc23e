//! Docker's daemon.json: `runtimes.NAME.path` and `.runtimeArgs`.

use super::{Entry, Way};
use crate::error::{Failure, Outcome};
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value, json};

/// The text with, or without, our entry.
pub(super) fn edit(text: &str, entry: &Entry, way: Way) -> Outcome<String> {
    let mut config: Value = if text.trim().is_empty() {
        json!({})
    } else {
        serde_json::from_str(text).map_err(|error| {
            let words = if error.is_eof() { "the file ends too early".to_owned() } else { error.to_string() };
            Failure::new(format!("malformed JSON: {words}"))
        })?
    };
    let before = config.clone();
    let top =
        config.as_object_mut().ok_or_else(|| Failure::new("malformed: the file is not a JSON object"))?;
    match way {
        Way::In => {
            let runtimes = top.entry("runtimes").or_insert_with(|| json!({}));
            let runtimes = runtimes.as_object_mut().ok_or_else(|| not_object("runtimes"))?;
            let ours = runtimes.entry(entry.name.clone()).or_insert_with(|| json!({}));
            let ours = ours.as_object_mut().ok_or_else(|| not_object(&format!("runtimes.{}", entry.name)))?;
            put(ours, entry);
        }
        Way::Out => {
            if let Some(runtimes) = top.get_mut("runtimes") {
                let runtimes = runtimes.as_object_mut().ok_or_else(|| not_object("runtimes"))?;
                runtimes.shift_remove(&entry.name);
                if runtimes.is_empty() {
                    top.shift_remove("runtimes");
                }
            }
            if top.get("default-runtime").and_then(Value::as_str) == Some(&entry.name) {
                return Err(Failure::new(format!(
                    "default-runtime is {:?}: choose another before it is uninstalled",
                    entry.name
                )));
            }
        }
    }
    if config == before {
        return Ok(text.to_owned());
    }
    print(&config, indent(text))
}

fn put(ours: &mut Map<String, Value>, entry: &Entry) {
    ours.insert("path".into(), json!(entry.binary));
    // Another kind of runtime that had this name.
    ours.shift_remove("runtimeType");
    ours.shift_remove("options");
    if entry.args.is_empty() {
        ours.shift_remove("runtimeArgs");
    } else {
        ours.insert("runtimeArgs".into(), json!(entry.args));
    }
}

fn not_object(field: &str) -> Failure {
    Failure::new(format!("{field}: must be a JSON object"))
}

/// How the file is indented: as its first indented line, else four blanks.
fn indent(text: &str) -> String {
    let line = text.lines().find(|line| line.starts_with([' ', '\t']) && !line.trim().is_empty());
    let blanks = line.map(|line| line.chars().take_while(|c| *c == ' ' || *c == '\t').collect::<String>());
    blanks.unwrap_or_else(|| "    ".to_owned())
}

fn print(config: &Value, indent: String) -> Outcome<String> {
    let mut out = Vec::new();
    let mut printer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(indent.as_bytes()));
    config.serialize(&mut printer).map_err(|error| Failure::new(error.to_string()))?;
    out.push(b'\n');
    String::from_utf8(out).map_err(|error| Failure::new(error.to_string()))
}
