//! Filters: `REPOSITORY-REGEX:TAG-REGEX`.

use std::str::FromStr;

use regex::{Regex, RegexBuilder};

/// The longest expression, in bytes, and the most memory that one takes when it is compiled.
const LONGEST: usize = 4096;
const MOST_MEMORY: usize = 1 << 20;

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
    #[error("expression `{expression}` of a filter: {reason}; lookaround and back-references are not known here")]
    Expression {
        /// The side.
        expression: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Filter {
    /// Whether the filter is about a repository: its expression is the whole name.
    pub fn covers(&self, repository: &str) -> bool {
        self.repository.is_match(repository)
    }

    /// Whether the filter is about a tag: its expression is found anywhere in it.
    pub fn finds(&self, tag: &str) -> bool {
        self.tag.is_match(tag)
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
    RegexBuilder::new(expression).size_limit(MOST_MEMORY).build().map_err(|error| {
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
        ] {
            let filter: Filter = text.parse().expect(text);
            assert!(filter.covers(repository) && filter.finds(tag), "{text}");
        }
        for text in ["", "app", ":", "app:", ":x", "a:b:c", "(?:a)", "a[:]b"] {
            assert!(matches!(text.parse::<Filter>(), Err(FilterError::Form(_))), "{text}");
        }
        for text in ["app:(", "(:x", "app:(?=x)", r"app:(a)\1", "a)(b:x", "app:x{1000}{1000}"] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
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
