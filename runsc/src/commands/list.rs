//! `list`.

use super::print;
use crate::cli::{Format, Global, List};
use crate::container::Store;
use crate::container::state::owner_name;
use crate::error::{Doing, Outcome};

/// `list`.
pub(super) fn list(global: &Global, args: &List) -> Outcome<u8> {
    let records = Store::open(global)?.list()?;
    if args.quiet {
        records.iter().try_for_each(|record| print(&format!("{}\n", record.id)))?;
        return Ok(0);
    }
    if args.format == Format::Json {
        let states: Vec<_> = records.iter().map(crate::container::Record::state_json).collect();
        let text = if states.is_empty() {
            "null".to_owned()
        } else {
            serde_json::to_string(&states).doing(|| "JSON")?
        };
        print(&text)?;
        return Ok(0);
    }
    let rows = records.iter().map(|record| {
        let bundle = record.bundle.display().to_string();
        let status = record.status().name().to_owned();
        [
            record.id.clone(),
            record.pid().to_string(),
            status,
            bundle,
            record.created.clone(),
            owner_name(record.owner),
        ]
    });
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    print(&table(std::iter::once(head).chain(rows)))?;
    Ok(0)
}

/// Columns as Go's tabwriter makes them for runc: at least 12 wide, three spaces between.
pub(super) fn table<const N: usize>(rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = rows.collect();
    let mut widths = [12; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<String>().trim_end());
        text.push('\n');
    }
    text
}
