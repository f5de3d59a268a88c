//! Filters: `REPOSITORY-REGEX:TAG-REGEX`.

use std::str::FromStr;

use fancy_regex::{Regex, RegexBuilder};

/// The longest expression, in bytes, and the most memory that one takes when it is compiled.
const LONGEST: usize = 4096;
const MOST_MEMORY: usize = 1 << 20;
/// How often an expression with lookaround or back-references may go back and try again, for one name.
const MOST_STEPS: usize = 100_000;

/// Which tags of which repositories are meant.
#[derive(Clone, Debug)]
pub struct Filter {
    repository: Regex,
    tag: Regex,
}

/// A text is no filter.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// It has not exactly one separator.
    #[error("filter `{0}` is not REPOSITORY-REGEX:TAG-REGEX, with one colon between the two, such as 'team/app:^dev-'")]
    Form(String),
    /// One of its sides is too long.
    #[error("an expression of a filter is longer than {LONGEST} bytes")]
    TooLong,
    /// One of its sides is no expression.
    #[error("expression `{expression}` of a filter: {reason}")]
    Expression {
        /// The side.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Filter {
    /// Whether the filter is about a repository: its expression is the whole name. An expression that takes too many steps
    /// is about nothing: what is in doubt stays.
    pub fn covers(&self, repository: &str) -> bool {
        self.repository.is_match(repository).unwrap_or(false)
    }

    /// Whether the filter is about a tag: its expression is found anywhere in it. One that takes too many steps is about
    /// nothing.
    pub fn finds(&self, tag: &str) -> bool {
        self.tag.is_match(tag).unwrap_or(false)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let colons = separators(text);
        let [at] = colons.as_slice() else {
            return Err(FilterError::Form(text.chars().take(160).collect()));
        };
        let (repository, tag) = (&text[..*at], &text[at + 1..]);
        if repository.is_empty() || tag.is_empty() {
            return Err(FilterError::Form(text.chars().take(160).collect()));
        }
        // Each is checked by itself: what is put around it must not mend it.
        compile(repository, repository)?;
        Ok(Self { repository: compile(&format!("^(?:{repository})$"), repository)?, tag: compile(tag, tag)? })
    }
}

/// Where the colons are that separate: not those of groups such as `(?:…)` and of classes such as `[[:alpha:]]`.
fn separators(text: &str) -> Vec<usize> {
    let (mut found, mut depth, mut in_flags, mut escaped) = (Vec::new(), 0_usize, false, false);
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            before = ' ';
            continue;
        }
        match c {
            '\\' => escaped = true,
            '[' => depth += 1,
            ']' => depth = depth.saturating_sub(1),
            '?' if before == '(' && depth == 0 => in_flags = true,
            ':' if depth == 0 && !std::mem::take(&mut in_flags) => found.push(at),
            ':' => {}
            c if in_flags && !c.is_ascii_alphabetic() && c != '-' => in_flags = false,
            _ => {}
        }
        before = c;
    }
    found
}

fn compile(expression: &str, shown: &str) -> Result<Regex, FilterError> {
    if expression.len() > LONGEST {
        return Err(FilterError::TooLong);
    }
    let mut builder = RegexBuilder::new(expression);
    builder.delegate_size_limit(MOST_MEMORY).backtrack_limit(MOST_STEPS);
    builder.build().map_err(|error| {
        // The parser draws the place over several lines; what is wrong is the last of them.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        FilterError::Expression { expression: shown.chars().take(160).collect(), reason }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_matched_whole_and_a_tag_anywhere() {
        let filter: Filter = "team/.*:^dev-|-rc".parse().expect("valid");
        for (repository, expect) in [("team/app", true), ("team/", true), ("a/team/app", false), ("team", false)] {
            assert_eq!(filter.covers(repository), expect, "{repository}");
        }
        for (tag, expect) in [("dev-1", true), ("v1-rc2", true), ("a-dev-1", false), ("v1", false)] {
            assert_eq!(filter.finds(tag), expect, "{tag}");
        }
        let either: Filter = "a|b:.*".parse().expect("valid");
        assert!(either.covers("a") && either.covers("b") && !either.covers("ab") && !either.covers("bx"));
    }

    #[test]
    fn one_colon_separates() {
        for (text, repository, tag) in [
            ("app:.*", "app", "x"),
            ("(?:a|b):v(?:1|2)", "b", "v2"),
            ("(?i:APP):x", "app", "x"),
            ("[[:alpha:]]+:[[:digit:]]+", "app", "12"),
            (r"app:a\[b", "app", "a[b"),
            ("app:^((?!release).)*$", "app", "dev-1"),
            (r"app:^(?<!x)(\w)\1", "app", "aab"),
        ] {
            let filter: Filter = text.parse().expect(text);
            assert!(filter.covers(repository) && filter.finds(tag), "{text}");
        }
        for text in ["", "app", ":", "app:", ":x", "a:b:c", "(?:a)", "a[:]b"] {
            assert!(matches!(text.parse::<Filter>(), Err(FilterError::Form(_))), "{text}");
        }
        for text in ["app:(", "(:x", "a)(b:x"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
        let but_releases: Filter = "app:^((?!release).)*$".parse().expect("valid");
        assert!(!but_releases.finds("v1-release"));
        // What would take for ever is about nothing.
        let slow: Filter = r"app:^(?=(a+)+$)(a|aa)+\1$".parse().expect("valid");
        assert!(!slow.finds(&format!("{}b", "a".repeat(120))));
        let long = format!("app:{}", "x".repeat(LONGEST + 1));
        assert_eq!(long.parse::<Filter>().map(drop), Err(FilterError::TooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in r"[a:()?\[\]\\|*+i^$.-]{0,16}") {
            if let Ok(filter) = text.parse::<Filter>() {
                let _ = (filter.covers("a"), filter.finds("a"));
            }
        }
    }
}
