//! The stages of a Dockerfile, what each stands on and reads from, and which of them a target needs.

use std::collections::{BTreeMap, BTreeSet};

use cooper_types::Platform;

use super::error::shown;
use super::lines::Instruction;
use super::{Dependencies, DockerfileError, words};

mod expand;

use expand::expand;

#[derive(Clone, Debug)]
pub(super) struct Stages {
    escape: char,
    /// The words of the `ARG` lines before the first `FROM`: name and default as written.
    arguments: Vec<Argument>,
    stages: Vec<Stage>,
}

#[derive(Clone, Debug)]
struct Argument {
    line: usize,
    name: String,
    default: Option<String>,
}

#[derive(Clone, Debug)]
struct Stage {
    line: usize,
    /// As written.
    base: String,
    /// In small letters.
    name: Option<String>,
    sources: Vec<Source>,
    /// What stages on top of this one read.
    on_build: Vec<Source>,
}

/// A stage or image that an instruction reads from.
#[derive(Clone, Debug)]
pub(super) struct Source {
    line: usize,
    from: String,
    /// Whether a number means a stage: in `COPY --from`, not in mounts.
    counts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Stage(usize),
    Scratch,
    Image(String),
}

impl Stages {
    pub(super) fn from_instructions(instructions: &[Instruction], escape: char) -> Result<Self, DockerfileError> {
        let mut arguments = Vec::new();
        let mut stages: Vec<Stage> = Vec::new();
        for instruction in instructions {
            let line = instruction.line;
            match (instruction.word.as_str(), stages.last_mut()) {
                ("FROM", _) => stages.push(stage(instruction)?),
                ("ARG", None) => arguments.extend(words::split(&instruction.rest, escape).into_iter().map(|word| {
                    match word.split_once('=') {
                        Some((name, value)) => {
                            Argument { line, name: name.to_owned(), default: Some(value.to_owned()) }
                        }
                        None => Argument { line, name: word, default: None },
                    }
                })),
                (word, None) => return Err(DockerfileError::BeforeFrom { line, word: shown(word) }),
                (_, Some(stage)) => {
                    stage.sources.extend(sources(instruction)?);
                    if let Some(trigger) = &instruction.trigger {
                        stage.on_build.extend(sources(trigger)?);
                    }
                }
            }
        }
        if stages.is_empty() {
            return Err(DockerfileError::NoFrom);
        }
        Ok(Self { escape, arguments, stages })
    }

    pub(super) fn dependencies(
        &self,
        target: Option<&str>,
        build_args: &[(String, String)],
        platform: Option<&Platform>,
    ) -> Result<Dependencies, DockerfileError> {
        let target = self.target(target)?;
        let bases = self.bases(&self.variables(build_args, platform)?)?;
        let reads = self.reads(&bases)?;
        let mut reached = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if reached.insert(index) {
                let (base, reads) = (bases.get(index).into_iter(), reads.get(index).into_iter().flatten());
                open.extend(base.chain(reads).filter_map(|origin| match origin {
                    Origin::Stage(index) => Some(*index),
                    Origin::Scratch | Origin::Image(_) => None,
                }));
            }
        }
        let mut ground = bases.get(target);
        while let Some(Origin::Stage(index)) = ground {
            // A stage can stand only on an earlier one, so this ends.
            ground = bases.get(*index);
        }
        let runtime = match ground {
            Some(Origin::Image(image)) => Some(image.clone()),
            _ => None,
        };
        let grounds: Vec<&Origin> = reached.iter().filter_map(|index| bases.get(*index)).collect();
        let (mut buildtime, mut copied) = (Vec::new(), Vec::new());
        for index in reached {
            for origin in bases.get(index).into_iter().chain(reads.get(index).into_iter().flatten()) {
                if let Origin::Image(image) = origin
                    && runtime.as_ref() != Some(image)
                    && !buildtime.contains(image)
                {
                    buildtime.push(image.clone());
                    if !grounds.contains(&origin) {
                        copied.push(image.clone());
                    }
                }
            }
        }
        Ok(Dependencies { runtime, buildtime, copied })
    }

    fn target(&self, target: Option<&str>) -> Result<usize, DockerfileError> {
        let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(self.stages.len() - 1) };
        let number = || target.parse().ok().filter(|index| *index < self.stages.len());
        self.named(target).or_else(number).ok_or_else(|| DockerfileError::UnknownTarget {
            target: shown(target),
            stages: self
                .stages
                .iter()
                .enumerate()
                .map(|(index, stage)| format!("`{}`", stage.name.clone().unwrap_or_else(|| index.to_string())))
                .take(20)
                .collect::<Vec<_>>()
                .join(", "),
        })
    }

    /// The stage of this name, in any letter case; of two, the later one.
    fn named(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.stages.iter().rposition(|stage| stage.name.as_ref() == Some(&name))
    }

    /// The values that `FROM` lines see.
    pub(super) fn variables(
        &self,
        build_args: &[(String, String)],
        platform: Option<&Platform>,
    ) -> Result<BTreeMap<String, String>, DockerfileError> {
        let given: BTreeMap<&str, &str> =
            build_args.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut variables = BTreeMap::new();
        if let Some(platform) = platform {
            for side in ["BUILD", "TARGET"] {
                let parts = [
                    ("PLATFORM", platform.to_string()),
                    ("OS", platform.os().to_owned()),
                    ("ARCH", platform.architecture().to_owned()),
                    ("VARIANT", platform.variant().unwrap_or_default().to_owned()),
                ];
                for (part, value) in parts {
                    let name = format!("{side}{part}");
                    let value = given.get(name.as_str()).map_or(value, |given| (*given).to_owned());
                    variables.insert(name, value);
                }
            }
        }
        for argument in &self.arguments {
            let value = match (given.get(argument.name.as_str()), &argument.default) {
                (Some(given), _) => (*given).to_owned(),
                (None, Some(default)) => self.expanded(default, argument.line, &variables)?,
                (None, None) => continue,
            };
            variables.insert(argument.name.clone(), value);
        }
        Ok(variables)
    }

    fn expanded(
        &self,
        text: &str,
        line: usize,
        variables: &BTreeMap<String, String>,
    ) -> Result<String, DockerfileError> {
        expand(text, self.escape, &|name| variables.get(name).cloned()).map_err(|reason| DockerfileError::Expansion {
            line,
            text: shown(text),
            reason,
        })
    }

    /// What each stage stands on. Only a name in small letters can mean an earlier stage, as in BuildKit.
    pub(super) fn bases(&self, variables: &BTreeMap<String, String>) -> Result<Vec<Origin>, DockerfileError> {
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        let mut bases = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let base = self.expanded(&stage.base, stage.line, variables)?;
            bases.push(match (names.get(base.as_str()), base.as_str()) {
                (Some(earlier), _) => Origin::Stage(*earlier),
                (None, "scratch") => Origin::Scratch,
                (None, "") => return Err(DockerfileError::NoImage { line: stage.line, text: shown(&stage.base) }),
                (None, _) => Origin::Image(base),
            });
            if let Some(name) = &stage.name {
                names.insert(name, index);
            }
        }
        Ok(bases)
    }

    /// What each stage reads from, with what the stage below it makes it read.
    fn reads(&self, bases: &[Origin]) -> Result<Vec<Vec<Origin>>, DockerfileError> {
        let on_build = |base: &Origin| match base {
            Origin::Stage(index) => self.stages.get(*index).map(|stage| stage.on_build.as_slice()).unwrap_or_default(),
            Origin::Scratch | Origin::Image(_) => &[],
        };
        self.stages
            .iter()
            .zip(bases)
            .map(|(stage, base)| {
                on_build(base).iter().chain(&stage.sources).map(|source| self.origin(source)).collect()
            })
            .collect()
    }

    pub(super) fn origin(&self, source: &Source) -> Result<Origin, DockerfileError> {
        if source.counts
            && let Ok(index) = source.from.parse::<i64>()
        {
            let count = self.stages.len();
            let stage = usize::try_from(index).ok().filter(|index| *index < count);
            return stage.map(Origin::Stage).ok_or(DockerfileError::StageIndex { line: source.line, index, count });
        }
        Ok(match (self.named(&source.from), source.from.as_str()) {
            (Some(index), _) => Origin::Stage(index),
            (None, "scratch") => Origin::Scratch,
            (None, image) => Origin::Image(image.to_owned()),
        })
    }
}

fn stage(from: &Instruction) -> Result<Stage, DockerfileError> {
    let line = from.line;
    let words: Vec<&str> = from.rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (*base, Some(name.to_lowercase())),
        _ => return Err(DockerfileError::From { line }),
    };
    if let Some(name) = &name {
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if !begins || !name.chars().all(known) {
            return Err(DockerfileError::StageName { line, name: shown(name) });
        }
    }
    Ok(Stage { line, base: base.to_owned(), name, sources: Vec::new(), on_build: Vec::new() })
}

/// What an instruction reads from: `COPY --from`, and `from` in the mounts of `RUN`.
pub(super) fn sources(instruction: &Instruction) -> Result<Vec<Source>, DockerfileError> {
    let line = instruction.line;
    let mut sources = Vec::new();
    for flag in &instruction.flags {
        let Some((name, value)) = flag.split_once('=') else { continue };
        match (instruction.word.as_str(), name) {
            ("COPY" | "ADD", "--from") => sources.push(Source { line, from: value.to_owned(), counts: true }),
            ("RUN", "--mount") => {
                for field in words::comma_fields(value) {
                    if let Some((key, from)) = field.split_once('=')
                        && key.eq_ignore_ascii_case("from")
                    {
                        sources.push(Source { line, from: from.to_owned(), counts: false });
                    }
                }
            }
            _ => {}
        }
    }
    sources.retain(|source| !source.from.is_empty());
    match sources.iter().find(|source| source.from.contains('$')) {
        Some(source) => Err(DockerfileError::VariableInSource { line, text: shown(&source.from) }),
        None => Ok(sources),
    }
}
