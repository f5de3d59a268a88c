//! The known name that an unknown one is most like.

/// The nearest of the known names, if it is near enough to have been meant.
pub(super) fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = text.to_lowercase();
    // A long text is no misspelt name, and comparing it would cost.
    if wanted.len() > 64 {
        return None;
    }
    let score = |name: &&str| (strsim::osa_distance(&wanted, &name.to_lowercase()), name.len());
    let best = known.min_by_key(score)?;
    let allowed = match best.chars().count() {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    };
    (strsim::osa_distance(&wanted, &best.to_lowercase()) <= allowed).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_near_was_meant() {
        let known = || ["cmd", "build", "workingDirectory", "when"].into_iter();
        assert_eq!(nearest("biuld", known()), Some("build"));
        assert_eq!(nearest("workingdirectroy", known()), Some("workingDirectory"));
        assert_eq!(nearest("CMD", known()), Some("cmd"));
        assert_eq!(nearest("cm", known()), Some("cmd"));
        assert_eq!(nearest("frobnicate", known()), None);
        assert_eq!(nearest(&"w".repeat(10_000), known()), None);
    }
}
