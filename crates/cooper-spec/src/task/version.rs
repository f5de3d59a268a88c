//! Whether aliases count, which must be known before a file is YAML: its version, read from its lines (contract §1.1).

use super::lines::Lines;
use super::model::TaskVersion;

/// Whether the file's aliases count.
pub(super) fn has_aliases(lines: &Lines<'_>) -> bool {
    let Some(text) = lines.iter().find_map(header) else { return false };
    match TaskVersion::parse(text) {
        Some(version) => version.has_aliases(),
        // Whoever means a later version means its aliases too; that it is not known is told later, and alone.
        None => text.to_ascii_lowercase().as_str() > TaskVersion::V1_1_0.as_str(),
    }
}

/// The version in a line that begins with `version:`, the key quoted or not.
fn header(line: &str) -> Option<&str> {
    let rest = line.strip_prefix(['\'', '"']).unwrap_or(line).strip_prefix("version")?;
    let rest = rest.trim_start_matches(['\'', '"', ' ', '\t']).strip_prefix(':')?;
    let rest = match rest.find(" #").or_else(|| rest.find("\t#")) {
        Some(comment) => &rest[..comment],
        None => rest,
    };
    Some(rest.trim_matches(|c: char| c.is_whitespace() || c == '\'' || c == '"'))
}

#[cfg(test)]
mod tests {
    use super::super::lines::Source;
    use super::*;

    #[test]
    fn the_version_is_found_in_the_lines() {
        let table = [
            ("version: v1.1.0", true),
            ("version: 'v1.1.0'", true),
            ("version: \"v1.1.0\"", true),
            ("'version': v1.1.0", true),
            ("\"version\": v1.1.0", true),
            ("\"version': v1.1.0", true),
            ("version : v1.1.0", true),
            ("version   :   v1.1.0   ", true),
            ("version:v1.1.0", true),
            ("\"version\" : 'v1.1.0'", true),
            ("version: v1.1.0 # the one with aliases", true),
            ("version: v1.1.0\t# tab", true),
            ("version: V1.1.0", true),
            ("steps: []\nversion: v1.1.0", true),
            ("\n\n\nversion: v1.1.0", true),
            ("version: v1.1.0\r\nsteps: []\r", true),
            ("\u{feff}version: v1.1.0", true),
            ("version: v1.1.0\nversion: v1.0.0", true),
            ("version: v2.0.0", true),
            ("version: v1.0.0\nversion: v1.1.0", false),
            ("version: v1.0.0", false),
            ("version: v1.0.0 # v1.1.0", false),
            ("version: 1.0-preview-1", false),
            ("version: 1.1.0", false),
            ("version:", false),
            ("version: ''", false),
            ("  version: v1.1.0", false),
            ("\tversion: v1.1.0", false),
            ("- version: v1.1.0", false),
            ("versions: v1.1.0", false),
            ("version v1.1.0", false),
            ("Version: v1.1.0", false),
            ("versio: v1.1.0", false),
            ("", false),
            ("steps: []", false),
        ];
        for (text, expected) in table {
            assert_eq!(has_aliases(&Source::new("t", text).lines()), expected, "{text:?}");
        }
    }
}
