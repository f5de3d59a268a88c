//! The frontend that a build is read by: the engine's own unless the operator wants the one that is asked for. By
//! `# syntax=` in the Dockerfile or by the build argument `BUILDKIT_SYNTAX`, which goes first.

use cooper_ports::engine::{EngineDescription, EngineFeature, ResolvedBase};
use cooper_spec::dockerfile::{Dockerfile, FrontendRules, FrontendUse};
use cooper_types::{Digest, ImageRef};

use super::own::is_answer;
use crate::step::bases::in_full;

/// The build argument that names a frontend, in engines that know it.
const ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// What was decided.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frontend {
    /// The Dockerfile as the engine is to have it, where that is another text.
    pub(super) text: Option<String>,
    /// The frontend's image, if it is one.
    pub(super) image: Option<FrontendImage>,
    /// A line for the log.
    pub(super) note: Option<String>,
}

/// A frontend that is an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FrontendImage {
    /// How it is asked for, in full.
    pub(super) named: ImageRef,
    /// What it is pinned to, if it is.
    pub(super) digest: Option<Digest>,
}

impl FrontendImage {
    /// What is pulled.
    pub(super) fn exact(&self) -> ImageRef {
        match &self.digest {
            Some(digest) => ImageRef { tag: None, digest: Some(digest.clone()), ..self.named.clone() },
            None => self.named.clone(),
        }
    }

    /// What an image was resolved to, as its name was written.
    pub(super) fn as_written(&self, base: ResolvedBase) -> ResolvedBase {
        match &self.digest {
            Some(digest) if is_answer(&base, &self.exact().to_string(), digest) => {
                ResolvedBase { reference: self.named.to_string(), ..base }
            }
            _ => base,
        }
    }
}

/// Decides on a Dockerfile's frontend, and takes what names it from the arguments. The error is the user's.
pub(super) fn decide(
    text: &str,
    arguments: &mut Vec<(String, String)>,
    rules: &FrontendRules,
    pinned: &[(String, Digest)],
    engine: &EngineDescription,
) -> Result<Frontend, String> {
    if text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']).starts_with('{') {
        return Err("it is no Dockerfile but for another frontend".to_owned());
    }
    let argument = arguments.iter().rev().find(|(name, _)| name == ARGUMENT).map(|(_, value)| value.clone());
    let argument = argument.filter(|value| !value.trim().is_empty());
    arguments.retain(|(name, _)| name != ARGUMENT);
    let may_name = Dockerfile::may_name_frontend(text);
    let without = || may_name.then(|| Dockerfile::with_frontend(text, None));
    let (asked, by) = match &argument {
        Some(value) => (value.split_whitespace().next().unwrap_or_default().to_owned(), format!("{ARGUMENT}=")),
        None => {
            let file = Dockerfile::parse(text).map_err(|error| error.to_string())?;
            match file.syntax() {
                Some(syntax) => (syntax.to_owned(), "# syntax=".to_owned()),
                // What only some engines would take for one is a comment for all.
                None => return Ok(Frontend { text: without(), ..Frontend::default() }),
            }
        }
    };
    let image = ImageRef::parse(&asked).map_err(|error| format!("`{by}{asked}` names no image: {error}"))?;
    match rules.of(&image) {
        None => Err(format!(
            "`{by}{asked}` asks for a frontend that this server does not allow; its operator can with `cooper serve \
             --frontend {asked}=pull`, or have the engine's own reader stand for it with `--frontend {asked}=builtin`"
        )),
        Some(FrontendUse::BuiltIn) => {
            let note = format!("`{by}{asked}` is the engine's own Dockerfile reader here: {}", abilities(engine));
            Ok(Frontend { text: without(), image: None, note: Some(note) })
        }
        Some(FrontendUse::Image) => {
            let named = in_full(image);
            let is_it = |name: &str| ImageRef::parse(name).is_ok_and(|image| in_full(image) == named);
            let digest = pinned.iter().find(|(name, _)| is_it(name)).map(|(_, digest)| digest.clone());
            let image = FrontendImage { named, digest };
            let name = image.exact().to_string();
            let text = match may_name {
                true => Dockerfile::with_frontend(text, Some(&name)),
                // Lines in errors are one more then: there is no line that could hold it.
                false => format!("# syntax={name}\n{text}"),
            };
            Ok(Frontend { text: Some(text), image: Some(image), note: None })
        }
    }
}

/// What an engine's own reader can and can't do.
fn abilities(engine: &EngineDescription) -> String {
    let known = [
        (EngineFeature::Heredoc, "here-documents"),
        (EngineFeature::CopyLink, "--link"),
        (EngineFeature::RunNetwork, "RUN --network"),
    ];
    let of = |there: bool| {
        let names = known.iter().filter(|(feature, _)| engine.features.contains(feature) == there);
        names.map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    };
    let said = match (of(true), of(false)) {
        (has, lacks) if lacks.is_empty() => format!("with {has}"),
        (_, lacks) => format!("without {lacks}"),
    };
    format!("{} {}, {said}; no image is pulled for it", engine.name, engine.version)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cooper_spec::dockerfile::FrontendRule;
    use cooper_types::Platform;

    use super::*;

    fn engine() -> EngineDescription {
        EngineDescription {
            name: "Docker Engine".to_owned(),
            version: "20.10.24".to_owned(),
            api_version: "1.41".to_owned(),
            native: Platform::LINUX_AMD64,
            emulated: BTreeSet::new(),
            features: BTreeSet::new(),
        }
    }

    fn argument(value: &str) -> Vec<(String, String)> {
        vec![("A".to_owned(), "b".to_owned()), (ARGUMENT.to_owned(), value.to_owned())]
    }

    fn on(text: &str, arguments: &mut Vec<(String, String)>) -> Result<Frontend, String> {
        let rules = FrontendRules(vec![FrontendRule::parse("r.io/f=pull").expect("a rule")]);
        let pinned = [("r.io/f:pinned".to_owned(), Digest::sha256(b"frontend"))];
        decide(text, arguments, &rules, &pinned, &engine())
    }

    #[test]
    fn dockers_own_is_built_in_and_others_need_a_rule() {
        let plain = "FROM scratch\n";
        assert_eq!(on(plain, &mut Vec::new()), Ok(Frontend::default()));
        let mapped = on("# syntax=docker/dockerfile:1\nFROM scratch\n", &mut Vec::new()).expect("allowed");
        assert_eq!(mapped.text.as_deref(), Some("# frontend: syntax=docker/dockerfile:1\nFROM scratch\n"));
        let note = mapped.note.expect("it is said");
        assert!(note.contains("Docker Engine 20.10.24, without here-documents, --link, RUN --network"), "{note}");
        let pulled = on("# syntax=r.io/f:1 words\nFROM scratch\n", &mut Vec::new()).expect("allowed");
        assert_eq!(pulled.text.as_deref(), Some("# syntax=r.io/f:1\nFROM scratch\n"));
        assert_eq!(pulled.image.map(|image| image.exact().to_string()).as_deref(), Some("r.io/f:1"));
        let again = on("# syntax=r.io/f:pinned\nFROM scratch\n", &mut Vec::new()).expect("allowed");
        let exact = format!("r.io/f@{}", Digest::sha256(b"frontend"));
        assert_eq!(again.text, Some(format!("# syntax={exact}\nFROM scratch\n")));
        let image = again.image.expect("one that is pulled");
        let digest = Digest::sha256(b"frontend");
        // Engines leave the digest out of the name.
        let resolved = |reference: &str| ResolvedBase { reference: reference.to_owned(), digest: digest.clone() };
        for asked in [exact.as_str(), "r.io/f"] {
            assert_eq!(image.as_written(resolved(asked)).reference, "r.io/f:pinned", "{asked}");
        }
        assert_eq!(image.as_written(resolved("r.io/g")).reference, "r.io/g");
        for text in ["# syntax=evil/x\nFROM scratch\n", "# syntax=cooper.invalid/o/ca1:1\nFROM scratch\n"] {
            assert!(on(text, &mut Vec::new()).expect_err("refused").contains("--frontend"), "{text}");
        }
        assert!(on("{\"syntax\": \"evil/x\"}", &mut Vec::new()).is_err());
        let hidden = on("// syntax=evil/x\nFROM scratch\n", &mut Vec::new());
        assert!(!hidden.is_ok_and(|it| it.text.is_none_or(|text| Dockerfile::may_name_frontend(&text))));
    }

    #[test]
    fn an_argument_is_no_way_around() {
        let plain = "FROM scratch\n";
        assert!(on(plain, &mut argument("evil/x")).expect_err("refused").contains("`BUILDKIT_SYNTAX=evil/x`"));
        let mut arguments = argument("docker/dockerfile:1 --x");
        assert_eq!(on(plain, &mut arguments).expect("mapped").text, None);
        assert_eq!(arguments, [("A".to_owned(), "b".to_owned())]);
        let mut arguments = argument("r.io/f:2");
        let pulled = on("# syntax=evil/x\nFROM scratch\n", &mut arguments).expect("the argument goes first");
        assert_eq!(pulled.text.as_deref(), Some("# syntax=r.io/f:2\nFROM scratch\n"));
        assert_eq!(arguments.len(), 1);
    }
}
