//! Filters of branches, tags and changed files by globs.
//!
//! `?` and `*` stop at a slash, `**` does not, `[a-z]` and `{a,b}` are alternatives, `\` takes a character as it is.

use std::sync::OnceLock;

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

/// The longest pattern, in bytes.
const MAX_PATTERN: usize = 512;
/// The most patterns of one filter.
const MAX_PATTERNS: usize = 200;

/// Why a filter is refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FilterError {
    /// The pattern is no glob.
    #[error("`{pattern}` is no pattern: {reason}")]
    Invalid {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are too many.
    #[error("there are more than {MAX_PATTERNS} patterns; write them with `*` or `{{a,b}}`")]
    TooMany,
}

/// Names that are taken: those that a pattern matches, without those that one after a `!` matches. Patterns with `!` alone
/// take everything else; no patterns take everything.
#[derive(Clone, Debug, Default)]
pub struct NameFilter {
    includes: Vec<Pattern>,
    excludes: Vec<Pattern>,
}

/// Files that count, by patterns as in `.gitignore`: one without a slash means a name in any folder, one with a slash is
/// taken from the root, and one that names a folder means everything in it.
#[derive(Clone, Debug, Default)]
pub struct PathFilter {
    includes: PathSet,
    excludes: PathSet,
}

/// Patterns that a path is compared with all at once: one after another they would take seconds for a large push. As with
/// [`Pattern`], what does that is made when the first path comes.
#[derive(Clone, Debug, Default)]
struct PathSet {
    globs: Vec<Glob>,
    matcher: OnceLock<PathMatcher>,
}

#[derive(Clone, Debug)]
enum PathMatcher {
    Together(GlobSet),
    /// Where they would be too large together.
    Each(Vec<GlobMatcher>),
}

impl PathSet {
    fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, FilterError> {
        let mut globs = Vec::new();
        for pattern in patterns {
            add_path(&mut globs, pattern.as_ref())?;
        }
        Ok(Self { globs, matcher: OnceLock::new() })
    }

    fn is_empty(&self) -> bool {
        self.globs.is_empty()
    }

    fn is_match(&self, path: &str) -> bool {
        match self.matcher.get_or_init(|| Self::matcher(&self.globs)) {
            PathMatcher::Together(set) => set.is_match(path),
            PathMatcher::Each(globs) => globs.iter().any(|glob| glob.is_match(path)),
        }
    }

    fn matcher(globs: &[Glob]) -> PathMatcher {
        let mut set = GlobSetBuilder::new();
        for glob in globs {
            set.add(glob.clone());
        }
        match set.build() {
            Ok(set) => PathMatcher::Together(set),
            Err(_) => PathMatcher::Each(globs.iter().map(Glob::compile_matcher).collect()),
        }
    }
}

/// A pattern that was read. What compares names with it is made when the first name comes: most events are decided before
/// that, and it costs a hundred times what reading does.
#[derive(Clone, Debug)]
struct Pattern {
    glob: Glob,
    matcher: OnceLock<GlobMatcher>,
}

impl Pattern {
    fn new(glob: Glob) -> Self {
        Self { glob, matcher: OnceLock::new() }
    }

    fn is_match(&self, name: &str) -> bool {
        self.matcher.get_or_init(|| self.glob.compile_matcher()).is_match(name)
    }

    fn text(&self) -> &str {
        self.glob.glob()
    }
}

impl NameFilter {
    /// Reads patterns of names.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, FilterError> {
        check_count(patterns.len())?;
        let mut filter = Self::default();
        for pattern in patterns {
            let pattern = pattern.as_ref();
            match pattern.strip_prefix('!') {
                Some(rest) => filter.excludes.push(Pattern::new(read(pattern, rest)?)),
                None => filter.includes.push(Pattern::new(read(pattern, pattern)?)),
            }
        }
        Ok(filter)
    }

    /// Whether the name is taken.
    pub fn takes(&self, name: &str) -> bool {
        self.why_not(name).is_none()
    }

    /// Why the name is not taken, as a phrase behind the name.
    pub fn why_not(&self, name: &str) -> Option<String> {
        if let Some(glob) = self.excludes.iter().find(|glob| glob.is_match(name)) {
            return Some(format!("is excluded by `!{}`", glob.text()));
        }
        if self.includes.is_empty() || self.includes.iter().any(|glob| glob.is_match(name)) {
            return None;
        }
        let patterns: Vec<String> = self.includes.iter().map(|glob| format!("`{}`", glob.text())).collect();
        const SHOWN: usize = 5;
        let more = if patterns.len() > SHOWN { format!(" and {} more", patterns.len() - SHOWN) } else { String::new() };
        Some(format!("is not one of {}{more}", patterns[..patterns.len().min(SHOWN)].join(", ")))
    }
}

impl PathFilter {
    /// Reads patterns of files that count (none: all do), and of files that don't.
    pub fn parse<S: AsRef<str>>(include: &[S], exclude: &[S]) -> Result<Self, FilterError> {
        check_count(include.len().max(exclude.len()))?;
        Ok(Self { includes: PathSet::parse(include)?, excludes: PathSet::parse(exclude)? })
    }

    /// Whether there is no pattern: then nothing needs to be asked.
    pub fn is_empty(&self) -> bool {
        self.includes.is_empty() && self.excludes.is_empty()
    }

    /// Whether the file counts.
    pub fn takes(&self, path: &str) -> bool {
        (self.includes.is_empty() || self.includes.is_match(path)) && !self.excludes.is_match(path)
    }
}

fn check_count(count: usize) -> Result<(), FilterError> {
    if count > MAX_PATTERNS { Err(FilterError::TooMany) } else { Ok(()) }
}

/// The file itself, unless the pattern ends in a slash, and all that is in it if it is a folder.
fn add_path(globs: &mut Vec<Glob>, pattern: &str) -> Result<(), FilterError> {
    if pattern.starts_with('!') {
        let reason = "what does not count is a filter of its own (exclude); write `\\!` for a name that begins with it";
        return Err(invalid(pattern, reason));
    }
    let folder = pattern.ends_with('/');
    let whole = pattern.strip_suffix('/').unwrap_or(pattern);
    let whole = whole.strip_prefix("./").unwrap_or(whole);
    let rooted = match whole.strip_prefix('/') {
        Some(rest) => rest.to_owned(),
        None if whole.contains('/') => whole.to_owned(),
        None => format!("**/{whole}"),
    };
    if matches!(rooted.as_str(), "" | "**/" | "**/." | ".") {
        return Err(invalid(pattern, "it names no file; leave the filter out to take all"));
    }
    if !folder {
        globs.push(read(pattern, &rooted)?);
    }
    globs.push(read(pattern, &format!("{rooted}/**"))?);
    Ok(())
}

fn read(pattern: &str, glob: &str) -> Result<Glob, FilterError> {
    if pattern.len() > MAX_PATTERN {
        return Err(invalid(&pattern[..pattern.floor_char_boundary(80)], "it is too long"));
    }
    if glob.is_empty() {
        return Err(invalid(pattern, "it is empty"));
    }
    if glob.chars().any(char::is_control) {
        return Err(invalid(pattern, "it has control characters"));
    }
    let built: Result<Glob, _> = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
    built.map_err(|error| invalid(pattern, error.kind()))
}

fn invalid(pattern: &str, reason: impl ToString) -> FilterError {
    FilterError::Invalid { pattern: pattern.escape_debug().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_match_as_in_a_shell() {
        for (patterns, taken, left) in [
            (&[][..], &["main", "a/b"][..], &[][..]),
            (&["main"], &["main"], &["Main", "main2", "a/main"]),
            (&["release/*"], &["release/1", "release/"], &["release", "release/1/2"]),
            (&["release/**"], &["release/1", "release/1/2"], &["release", "main"]),
            (&["v[0-9]*.{0,1}"], &["v1.0", "v12.1"], &["v1.2", "vx.0"]),
            (&["!wip/**"], &["main", "x/y"], &["wip/a"]),
            (&["feature/**", "!feature/old-*"], &["feature/a/b", "feature/new"], &["feature/old-1", "main"]),
            (&["!main", "*"], &["dev"], &["main", "a/b"]),
            (&["a\\{b"], &["a{b"], &["ab"]),
        ] {
            let filter = NameFilter::parse(patterns).unwrap();
            for name in taken {
                assert!(filter.takes(name), "{patterns:?} should take {name}");
            }
            for name in left {
                assert!(!filter.takes(name), "{patterns:?} should leave {name}");
            }
        }
        let filter = NameFilter::parse(&["main", "release/*", "!x"]).unwrap();
        assert_eq!(filter.why_not("dev").unwrap(), "is not one of `main`, `release/*`");
        assert_eq!(filter.why_not("x").unwrap(), "is excluded by `!x`");
        let many: Vec<String> = (0..7).map(|number| number.to_string()).collect();
        let said = NameFilter::parse(&many).unwrap().why_not("x").unwrap();
        assert_eq!(said, "is not one of `0`, `1`, `2`, `3`, `4` and 2 more");
    }

    #[test]
    fn paths_match_as_in_gitignore() {
        for (include, exclude, taken, left) in [
            (&[][..], &[][..], &["a", "b/c"][..], &[][..]),
            (&["*.rs"], &[], &["a.rs", "src/a.rs"], &["a.rc", "a.rs.txt"]),
            (&["/*.rs"], &[], &["a.rs"], &["src/a.rs"]),
            (&["docs/"], &[], &["docs/a", "x/docs/b/c"], &["docs", "docs2/a"]),
            (&["/docs"], &[], &["docs", "docs/a/b"], &["x/docs/a"]),
            (
                &["services/web"],
                &[],
                &["services/web/main.go", "services/web"],
                &["services/webapp/x", "a/services/web/x"],
            ),
            (&["services/*/Dockerfile"], &[], &["services/web/Dockerfile"], &["services/a/b/Dockerfile"]),
            (&["**/Dockerfile"], &[], &["Dockerfile", "a/b/Dockerfile"], &["Dockerfile.dev"]),
            (&["src/**/*.c"], &[], &["src/a.c", "src/x/y/a.c"], &["a.c"]),
            (&["./src"], &[], &["src/a"], &["lib/src.c"]),
            (&[], &["*.md", "docs/"], &["a.rs", "b/c"], &["README.md", "docs/x.rs", "a/b.md"]),
            (&["src"], &["*_test.go"], &["src/a.go"], &["src/a_test.go", "x.go"]),
        ] {
            let filter = PathFilter::parse(include, exclude).unwrap();
            for path in taken {
                assert!(filter.takes(path), "{include:?} without {exclude:?} should take {path}");
            }
            for path in left {
                assert!(!filter.takes(path), "{include:?} without {exclude:?} should leave {path}");
            }
        }
    }

    #[test]
    fn many_paths_are_compared_with_many_patterns_in_little_time() {
        let patterns: Vec<String> = (0..MAX_PATTERNS).map(|number| format!("services/*/{number}-[a-z]*")).collect();
        let filter = PathFilter::parse(&patterns, &patterns).unwrap();
        let start = std::time::Instant::now();
        for number in 0..10_000 {
            assert!(!filter.takes(&format!("services/some-service/src/deep/folder/{number}-file.rs")));
        }
        assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
        // Where they would be too large for one set, they are compared one after another.
        let together = PathSet::parse(&patterns).unwrap();
        let each = PathMatcher::Each(together.globs.iter().map(Glob::compile_matcher).collect());
        let each = PathSet { globs: together.globs.clone(), matcher: OnceLock::from(each) };
        for (path, is_match) in [("services/a/7-b", true), ("services/a/7-b/c/d", true), ("services/a/7", false)] {
            assert_eq!((together.is_match(path), each.is_match(path)), (is_match, is_match), "{path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_name() {
        for (pattern, expect) in [
            ("a[", "`a[` is no pattern: unclosed character class; missing ']'"),
            ("{a", "`{a` is no pattern: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)"),
            ("", "`` is no pattern: it is empty"),
            ("!", "`!` is no pattern: it is empty"),
            ("a\nb", "`a\\nb` is no pattern: it has control characters"),
        ] {
            assert_eq!(NameFilter::parse(&[pattern]).unwrap_err().to_string(), expect);
        }
        for pattern in ["", "/", "./", ".", "!x"] {
            assert!(PathFilter::parse(&[pattern], &[]).is_err(), "{pattern}");
        }
        assert!(NameFilter::parse(&["a".repeat(MAX_PATTERN + 1)]).is_err());
        assert_eq!(NameFilter::parse(&vec!["a"; MAX_PATTERNS + 1]).unwrap_err(), FilterError::TooMany);
    }

    proptest! {
        // Each case compiles several patterns.
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn any_pattern_is_read_or_refused(pattern in ".{0,40}", name in ".{0,40}") {
            if let Ok(filter) = NameFilter::parse(&[&pattern]) {
                prop_assert_eq!(filter.takes(&name), filter.why_not(&name).is_none());
            }
            if let Ok(filter) = PathFilter::parse(&[&pattern], &[]) {
                let rest = PathFilter::parse(&[], &[&pattern]).unwrap();
                prop_assert_ne!(filter.takes(&name), rest.takes(&name));
            }
        }

        #[test]
        fn a_plain_name_takes_itself_alone(name in "[a-z0-9._/-]{1,20}", other in "[a-z0-9._/-]{1,20}") {
            let filter = NameFilter::parse(&[&name]).unwrap();
            prop_assert!(filter.takes(&name));
            prop_assert_eq!(filter.takes(&other), name == other);
        }
    }
}
