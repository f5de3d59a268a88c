//! Tables of text: columns as wide as their widest cell, as `az` and `docker` show them.

/// Lines of a table with its heading, without a newline at the end.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heading.map(console::measure_text_width);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(console::measure_text_width(cell));
        }
    }
    let line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            let blanks = width.saturating_sub(console::measure_text_width(cell)) + 3;
            line.push_str(cell);
            line.push_str(&" ".repeat(blanks));
        }
        line.trim_end().to_owned()
    };
    let rows = rows.iter().map(|row| line(row.each_ref().map(String::as_str)));
    std::iter::once(line(heading)).chain(rows).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["ca1".to_owned(), "Succeeded".to_owned()], ["ca10".to_owned(), "Failed".to_owned()]];
        assert_eq!(table(["RUN ID", "STATUS"], &rows), "RUN ID   STATUS\nca1      Succeeded\nca10     Failed");
    }
}
