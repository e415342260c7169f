//! Columns for people: three spaces between them, no lines, as kubectl's users know it.

use crate::render::Column;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets::NOTHING};
use serde_json::Value;

/// Rows as a table.
pub(crate) fn table(columns: &[Column], rows: &[Value], headers: bool) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    if headers {
        table.set_header(columns.iter().map(|column| column.header));
    }
    for row in rows {
        table.add_row(columns.iter().map(|column| (column.cell)(row)));
    }
    let last = columns.len().saturating_sub(1);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, if index == last { 0 } else { 3 }));
        column.set_cell_alignment(CellAlignment::Left);
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_stand_below_each_other() {
        let columns = [
            Column { header: "NAME", cell: |row| row["n"].as_str().unwrap_or("-").to_owned() },
            Column { header: "STATE", cell: |row| row["s"].as_str().unwrap_or("-").to_owned() },
        ];
        let rows = [json!({"n": "a-long-name", "s": "up"}), json!({"n": "b"})];
        let expected = "NAME          STATE\na-long-name   up\nb             -\n";
        assert_eq!(table(&columns, &rows, true), expected);
        assert_eq!(table(&columns, &rows[1..], false), "b   -\n");
    }
}
