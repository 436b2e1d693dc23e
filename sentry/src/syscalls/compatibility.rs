//! The compatibility page (docs/compatibility.md), made from the table of calls.

use super::table::{self, Entry, Support};

fn word(support: Support) -> &'static str {
    match support {
        Support::Full => "yes",
        Support::Partial => "in part",
        Support::Absent => "no",
    }
}

/// The page as Markdown.
#[must_use]
pub fn page() -> String {
    let entries = table::entries();
    let count = |support: Support| entries.iter().filter(|entry| entry.support == support).count();
    let mut out = format!(
        "# System calls\n\n\
         Made from `sentry/src/syscalls/table.rs`; a test keeps the two the same (`UPDATE_PAGES=1 cargo test -p sentry \
         compatibility` writes it anew).\n\n\
         x86-64: {} calls are there, {} in part, {} fail as on a kernel built without them. Every number that is not \
         listed fails with `ENOSYS`.\n",
        count(Support::Full),
        count(Support::Partial),
        count(Support::Absent),
    );
    let mut families: Vec<&str> = entries.iter().map(Entry::family).collect();
    families.sort_unstable();
    families.dedup();
    for family in families {
        out.push_str(&format!(
            "\n## {family}\n\n| number | call | there | what is missing |\n|---|---|---|---|\n"
        ));
        for entry in entries.iter().filter(|entry| entry.family() == family) {
            let (number, name, note) = (entry.number, entry.name(), entry.note);
            out.push_str(&format!("| {number} | `{name}` | {} | {note} |\n", word(entry.support)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatibility_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
        if std::env::var_os("UPDATE_PAGES").is_some() {
            std::fs::write(path, page()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page(),
            "docs/compatibility.md is not what the table says: UPDATE_PAGES=1 writes it"
        );
    }

    #[test]
    fn every_number_once_and_in_order() {
        let numbers: Vec<u32> = table::entries().iter().map(|entry| entry.number).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    }
}
