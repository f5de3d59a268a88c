//! Frontends: images that read a Dockerfile in place of the engine's own reader, as `# syntax=` asks for.
//!
//! Owns which of them the operator wants, and Dockerfiles that name none or another one. Engines differ in what they take
//! for such a line; everything that one could take for it is changed, so that what is decided here is what happens.

use std::fmt;

use cooper_types::{ImageRef, SourceHost};

use super::Dockerfile;

/// The repositories of Docker's own frontend and of its versions before they are released.
const DOCKERS_OWN: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];
/// The end of registries' names that cannot exist (RFC 6761).
const NO_REGISTRY: &str = ".invalid";

/// What stands for a frontend that a Dockerfile asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendUse {
    /// The engine's own reader: nothing is pulled.
    BuiltIn,
    /// The image itself.
    Image,
}

/// What stands for one frontend: `IMAGE=builtin` or `IMAGE=pull`. Without a tag and a digest, the image is any of its
/// repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendRule {
    image: ImageRef,
    serves: FrontendUse,
}

/// The operator's rules: the first that fits counts. Docker's own frontend is the engine's own reader unless a rule says
/// otherwise, and every other frontend is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrontendRules(pub Vec<FrontendRule>);

/// The text is no rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no rule for a frontend; write IMAGE=builtin or IMAGE=pull, such as docker/dockerfile:1=pull")]
pub struct FrontendRuleError(String);

impl FrontendRule {
    /// Parses a rule.
    pub fn parse(text: &str) -> Result<Self, FrontendRuleError> {
        let error = || FrontendRuleError(text.chars().take(160).collect());
        let (image, serves) = text.trim().rsplit_once('=').ok_or_else(error)?;
        let image = ImageRef::parse(image.trim()).map_err(|_| error())?;
        let serves = match serves.trim() {
            "builtin" => FrontendUse::BuiltIn,
            "pull" => FrontendUse::Image,
            _ => return Err(error()),
        };
        match is_nobodys(&image) {
            true => Err(error()),
            false => Ok(Self { image, serves }),
        }
    }

    fn fits(&self, frontend: &ImageRef) -> bool {
        let Self { image, .. } = self;
        let any = image.tag.is_none() && image.digest.is_none();
        SourceHost::of_image(image) == SourceHost::of_image(frontend)
            && image.repository == frontend.repository
            && (any || (&image.tag, &image.digest) == (&frontend.tag, &frontend.digest))
    }
}

impl fmt::Display for FrontendRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let serves = match self.serves {
            FrontendUse::BuiltIn => "builtin",
            FrontendUse::Image => "pull",
        };
        write!(f, "{}={serves}", self.image)
    }
}

impl FrontendRules {
    /// What stands for a frontend; `None` if it is not allowed.
    pub fn of(&self, frontend: &ImageRef) -> Option<FrontendUse> {
        if is_nobodys(frontend) {
            return None;
        }
        if let Some(rule) = self.0.iter().find(|rule| rule.fits(frontend)) {
            return Some(rule.serves);
        }
        let hub = ImageRef { registry: None, ..frontend.clone() };
        let is_dockers = SourceHost::of_image(frontend) == SourceHost::of_image(&hub)
            && DOCKERS_OWN.contains(&frontend.repository.as_str());
        is_dockers.then_some(FrontendUse::BuiltIn)
    }
}

/// Whether an image is in a registry that cannot exist: engines know what other runs built by such names.
fn is_nobodys(image: &ImageRef) -> bool {
    image.registry.as_ref().is_some_and(|registry| {
        let host = registry.as_str().split(':').next().unwrap_or_default();
        host.trim_end_matches('.').to_ascii_lowercase().ends_with(NO_REGISTRY)
    })
}

impl Dockerfile {
    /// The text with this frontend, or with none; every instruction stays on its line. A text that names none before can be
    /// given none.
    pub fn with_frontend(text: &str, frontend: Option<&str>) -> String {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let head = lines.iter().take_while(|line| is_comment(line)).count();
        let (head, rest) = lines.split_at(head);
        let shebang = usize::from(head.first().is_some_and(|line| line.starts_with("#!")));
        // Directives end at the first line that is none: those that stay go first.
        let block = head[shebang..].iter().take_while(|line| directive(line).is_some()).count();
        let (block, comments) = head[shebang..].split_at(block);
        let (syntax, kept): (Vec<&str>, Vec<&str>) = block.iter().partition(|line| is_syntax(line));
        let mut wanted = frontend;
        let changed = |line: &&str| -> String {
            match line.split_once(['\r', '\n']) {
                _ if !is_syntax(line) => (*line).to_owned(),
                Some((line, _)) => format!("# frontend: {}\n", line.trim_start_matches(['#', '/', ' '])),
                None => format!("# frontend: {}", line.trim_start_matches(['#', '/', ' '])),
            }
        };
        let directives = syntax.iter().map(|line| match wanted.take() {
            Some(frontend) => format!("# syntax={frontend}\n"),
            None => changed(line),
        });
        let directives: Vec<String> = directives.collect();
        let same = |line: &&str| (*line).to_owned();
        let parts = head[..shebang].iter().map(same).chain(kept.iter().map(same)).chain(directives);
        let parts = parts.chain(comments.iter().map(changed)).chain(rest.iter().map(same));
        // A last line without its end may have moved up.
        let mut out = String::with_capacity(text.len() + 64);
        for part in parts {
            if !out.is_empty() && !out.ends_with('\n') {
                out.push('\n');
            }
            out.push_str(&part);
        }
        out
    }

    /// Whether any line could be taken for one that names a frontend.
    pub fn may_name_frontend(text: &str) -> bool {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        text.lines().take_while(|line| is_comment(line)).any(is_syntax)
    }
}

/// Whether a line can stand before the first instruction.
fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with("//")
}

/// The name of a directive in any engine's eyes.
fn directive(line: &str) -> Option<&str> {
    let line = line.trim();
    let (name, value) = line.strip_prefix('#').or_else(|| line.strip_prefix("//"))?.split_once('=')?;
    let name = name.trim();
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (is_name && !value.trim().is_empty()).then_some(name)
}

fn is_syntax(line: &str) -> bool {
    directive(line).is_some_and(|name| name.eq_ignore_ascii_case("syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[&str]) -> FrontendRules {
        FrontendRules(texts.iter().map(|text| FrontendRule::parse(text).expect(text)).collect())
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_dockers_own_is_built_in() {
        let of = |rules: &FrontendRules, image: &str| rules.of(&ImageRef::parse(image).expect(image));
        let none = rules(&[]);
        for image in
            ["docker/dockerfile", "docker/dockerfile:1-labs", "index.docker.io/docker/dockerfile-upstream:master"]
        {
            assert_eq!(of(&none, image), Some(FrontendUse::BuiltIn), "{image}");
        }
        for image in ["evil/dockerfile", "r.io/docker/dockerfile:1", "cooper.invalid/x/ca1:1", "dockerfile"] {
            assert_eq!(of(&none, image), None, "{image}");
        }
        let some = rules(&["docker/dockerfile:1.7=pull", "r.io/f=pull", "docker/dockerfile=builtin"]);
        assert_eq!(of(&some, "docker.io/docker/dockerfile:1.7"), Some(FrontendUse::Image));
        assert_eq!(of(&some, "docker/dockerfile:1"), Some(FrontendUse::BuiltIn));
        assert_eq!(
            of(&some, "r.io/f@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            Some(FrontendUse::Image)
        );
        assert_eq!(some.0[1].to_string(), "r.io/f=pull");
        for text in
            ["docker/dockerfile", "=pull", "a=b", "A B=pull", "cooper.invalid/a/b:1=pull", "X.Invalid:80/a=pull"]
        {
            assert!(FrontendRule::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whatever_could_name_a_frontend_names_none_afterwards() {
        let check = |text: &str, expect: &str| {
            let changed = Dockerfile::with_frontend(text, None);
            assert_eq!(changed, expect);
            assert!(!Dockerfile::may_name_frontend(&changed), "{changed}");
            assert_eq!(text.lines().count(), changed.lines().count());
        };
        check("# syntax=docker/dockerfile:1\nFROM a\n", "# frontend: syntax=docker/dockerfile:1\nFROM a\n");
        check("#Syntax = x y\r\n# escape=`\r\nFROM a\n", "# escape=`\r\n# frontend: Syntax = x y\nFROM a\n");
        check("#!/usr/bin/env x\n# syntax=a\nFROM a\n", "#!/usr/bin/env x\n# frontend: syntax=a\nFROM a\n");
        check("// syntax=a\nFROM a\n", "# frontend: syntax=a\nFROM a\n");
        check("\n# hello\n  # syntax=a", "\n# hello\n# frontend: syntax=a");
        check("# syntax=a\n# escape=`", "# escape=`\n# frontend: syntax=a\n");
        check("FROM a\n# syntax=b\n", "FROM a\n# syntax=b\n");
    }

    #[test]
    fn one_frontend_is_named_once() {
        let text = "\u{feff}# check=skip=all\n# syntax=a\n# syntax=b\nFROM a\n";
        let changed = Dockerfile::with_frontend(text, Some("r.io/f:1"));
        assert_eq!(changed, "# check=skip=all\n# syntax=r.io/f:1\n# frontend: syntax=b\nFROM a\n");
        assert_eq!(Dockerfile::parse(&changed).expect("a Dockerfile").syntax(), Some("r.io/f:1"));
    }
}
