//! Run variables in texts: `{{.Run.ID}}` and its like (ACR contract §4.2).
//!
//! Only plain variables are known here; the template language of task files is another matter. Like Go's templates,
//! `{{-` and `-}}` take the blanks beside them away, and a `}}` without its `{{` is text.

use cooper_types::{Platform, RegistryName, RunId, Timestamp};

/// The values of `.Run`. What a run does not have is empty text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunVariables {
    /// `.Run.ID`
    pub id: RunId,
    /// `.Run.Registry`, and `.Run.RegistryName` up to its first dot.
    pub registry: RegistryName,
    /// `.Run.OS` and `.Run.Architecture`
    pub platform: Platform,
    /// `.Run.Date` is made from this.
    pub created: Timestamp,
    /// `.Run.Commit`
    pub commit: String,
    /// `.Run.Branch`
    pub branch: String,
    /// `.Run.Repository`
    pub repository: String,
    /// `.Run.GitTag`
    pub git_tag: String,
    /// `.Run.TriggeredBy`
    pub triggered_by: String,
    /// `.Run.OSVersion`
    pub os_version: String,
    /// `.Run.TaskName`; empty for a quick run.
    pub task_name: String,
}

/// Why a text can't be rendered. Columns count characters from 1.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// The expression is none that is known.
    #[error(
        "expression `{{{{{expression}}}}}` at column {column} is unknown{}; known are {known}",
        nearest.map(|name| format!(", did you mean `{{{{{name}}}}}`?")).unwrap_or_default()
    )]
    Unknown {
        /// What stands between the braces.
        expression: String,
        /// Where its `{{` begins.
        column: usize,
        /// The known variable that it is most like, if it is much like one.
        nearest: Option<&'static str>,
        /// What there is.
        known: String,
    },
    /// A `{{` has no `}}`.
    #[error("`{{{{` at column {column} is not closed; end the expression with `}}}}`")]
    NotClosed {
        /// Where the `{{` begins.
        column: usize,
    },
    /// Filled in, it is more than is taken.
    #[error("filled in, the request's texts are longer than they may be together; name fewer or shorter things")]
    TooLong,
}

impl RunVariables {
    /// The variables of a quick build: those that come from a source, a task or a trigger are empty.
    pub fn quick_build(id: RunId, registry: &RegistryName, platform: &Platform, created: Timestamp) -> Self {
        Self {
            id,
            registry: registry.clone(),
            platform: platform.clone(),
            created,
            commit: String::new(),
            branch: String::new(),
            repository: String::new(),
            git_tag: String::new(),
            triggered_by: String::new(),
            os_version: String::new(),
            task_name: String::new(),
        }
    }

    /// Every field of `.Run` by its name.
    pub(crate) fn all(&self) -> Vec<(&'static str, String)> {
        let fields = VARIABLES.iter().filter_map(|(name, variable)| Some((name.strip_prefix(".Run.")?, *variable)));
        fields.map(|(name, variable)| (name, self.value(variable))).collect()
    }

    fn value(&self, variable: Variable) -> String {
        match variable {
            Variable::Id => self.id.to_string(),
            Variable::Commit => self.commit.clone(),
            Variable::Branch => self.branch.clone(),
            Variable::Repository => self.repository.clone(),
            Variable::GitTag => self.git_tag.clone(),
            Variable::TriggeredBy => self.triggered_by.clone(),
            Variable::Registry => self.registry.as_str().to_owned(),
            Variable::RegistryName => self.registry.as_str().split('.').next().unwrap_or_default().to_owned(),
            Variable::Date => date(self.created),
            // No step has an engine to which a volume's name could be said.
            Variable::SharedVolume => String::new(),
            Variable::Os => self.platform.os().to_owned(),
            Variable::Architecture => self.platform.architecture().to_owned(),
            Variable::OsVersion => self.os_version.clone(),
            Variable::TaskName => self.task_name.clone(),
        }
    }
}

/// Replaces every expression of `text`. More than `limit` bytes are an error: a short expression may stand for a long
/// value, many times.
pub fn render(text: &str, variables: &RunVariables, limit: usize) -> Result<String, TemplateError> {
    expand(text, limit, |variable| variables.value(variable))
}

/// Whether a text can't be rendered before its run's source is known.
pub fn needs_source(text: &str) -> Result<bool, TemplateError> {
    let mut needed = false;
    expand(text, usize::MAX, |variable| {
        needed |= variable.is_of_source();
        String::new()
    })?;
    Ok(needed)
}

fn expand(text: &str, limit: usize, mut value: impl FnMut(Variable) -> String) -> Result<String, TemplateError> {
    let mut output = String::new();
    let mut rest = text;
    let mut trim_next = false;
    while let Some((before, after)) = rest.split_once("{{") {
        // Counted for an error alone: it takes a look at all that stands before.
        let start = text.len() - rest.len() + before.len();
        let column = || text[..start].chars().count() + 1;
        let (inside, behind) = after.split_once("}}").ok_or_else(|| TemplateError::NotClosed { column: column() })?;
        let before = if trim_next { before.trim_start() } else { before };
        // The dash belongs to the braces only where a blank stands on its other side.
        let left = inside.strip_prefix('-').filter(|inner| inner.starts_with(char::is_whitespace));
        output.push_str(if left.is_some() { before.trim_end() } else { before });
        let inner = left.unwrap_or(inside);
        let right = inner.strip_suffix('-').filter(|inner| inner.ends_with(char::is_whitespace));
        trim_next = right.is_some();
        let expression = right.unwrap_or(inner).trim();
        match VARIABLES.iter().find(|(name, _)| *name == expression) {
            Some((_, variable)) => output.push_str(&value(*variable)),
            None => return Err(unknown(expression, column())),
        }
        if output.len() > limit {
            return Err(TemplateError::TooLong);
        }
        rest = behind;
    }
    output.push_str(if trim_next { rest.trim_start() } else { rest });
    if output.len() > limit { Err(TemplateError::TooLong) } else { Ok(output) }
}

#[derive(Clone, Copy)]
enum Variable {
    Id,
    Commit,
    Branch,
    Repository,
    GitTag,
    TriggeredBy,
    Registry,
    RegistryName,
    Date,
    SharedVolume,
    Os,
    Architecture,
    OsVersion,
    TaskName,
}

impl Variable {
    /// Whether its value is known only when the source has been fetched.
    fn is_of_source(self) -> bool {
        matches!(self, Self::Commit | Self::Branch | Self::GitTag)
    }
}

const VARIABLES: &[(&str, Variable)] = &[
    (".Run.ID", Variable::Id),
    (".Run.Registry", Variable::Registry),
    (".Run.RegistryName", Variable::RegistryName),
    (".Run.Date", Variable::Date),
    (".Run.OS", Variable::Os),
    (".Run.OSVersion", Variable::OsVersion),
    (".Run.Architecture", Variable::Architecture),
    (".Run.Commit", Variable::Commit),
    (".Run.Branch", Variable::Branch),
    (".Run.Repository", Variable::Repository),
    (".Run.GitTag", Variable::GitTag),
    (".Run.TriggeredBy", Variable::TriggeredBy),
    (".Run.SharedVolume", Variable::SharedVolume),
    (".Run.TaskName", Variable::TaskName),
    // The old name of the run's id: still in many people's files.
    (".Build.ID", Variable::Id),
];

/// Bytes of an expression that may be a slip of a name.
const MAX_NEAR: usize = 64;

fn unknown(expression: &str, column: usize) -> TemplateError {
    let wanted = expression.to_ascii_lowercase();
    let distance = |name: &str| strsim::levenshtein(&wanted, &name.to_ascii_lowercase());
    // A text far longer than any name is near to none, so that hostile input costs nothing.
    let names = VARIABLES.iter().filter(|_| wanted.len() <= MAX_NEAR);
    let nearest = names.map(|(name, _)| (distance(name), *name)).min();
    TemplateError::Unknown {
        expression: expression.chars().take(160).collect(),
        column,
        nearest: nearest.and_then(|(distance, name)| (distance <= 3).then_some(name)),
        known: VARIABLES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
    }
}

/// `yyyyMMdd-HHmmss` in UTC with a `z` behind it, such as `20240131-235959z`.
fn date(time: Timestamp) -> String {
    let seconds = time.as_micros().div_euclid(1_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Civil date from days, counting years from March so that the leap day is the last (Howard Hinnant).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second % 3_600 / 60);
    format!("{year:04}{month:02}{day:02}-{hour:02}{minute:02}{:02}z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn variables() -> RunVariables {
        let registry = RegistryName::parse("reg.example.io:5000").expect("valid");
        let created = Timestamp::from_micros(1_706_745_599_999_999);
        RunVariables {
            branch: "main".to_owned(),
            commit: "0a1b".to_owned(),
            ..RunVariables::quick_build(RunId::from_number(1), &registry, &Platform::LINUX_AMD64, created)
        }
    }

    #[test]
    fn renders() {
        let id = RunId::from_number(1).to_string();
        let table = [
            ("app:v1", "app:v1".to_owned()),
            ("", String::new()),
            ("app:{{.Run.ID}}", format!("app:{id}")),
            ("app:{{ .Run.ID }}-{{\t.Run.Branch }}", format!("app:{id}-main")),
            ("{{.Build.ID}}", id.clone()),
            ("{{.Run.Registry}}/{{.Run.RegistryName}}", "reg.example.io:5000/reg".to_owned()),
            ("{{.Run.Date}}", "20240131-235959z".to_owned()),
            ("{{.Run.OS}}/{{.Run.Architecture}}/{{.Run.OSVersion}}", "linux/amd64/".to_owned()),
            ("[{{.Run.TaskName}}{{.Run.GitTag}}{{.Run.TriggeredBy}}{{.Run.SharedVolume}}]", "[]".to_owned()),
            ("{{.Run.Repository}}{{.Run.Commit}}", "0a1b".to_owned()),
            ("a  {{- .Run.Branch -}}  b", "amainb".to_owned()),
            ("a  {{- .Run.Branch }}  b", "amain  b".to_owned()),
            ("a {{ .Run.Branch -}} {{- .Run.Branch }} b", "a mainmain b".to_owned()),
            ("a }} b { c } {", "a }} b { c } {".to_owned()),
            ("ü{{.Run.Branch}}ü", "ümainü".to_owned()),
        ];
        for (text, expected) in table {
            assert_eq!(render(text, &variables(), LIMIT), Ok(expected), "{text}");
        }
    }

    /// What a quick build takes for a template is one in a task file too, and says the same.
    #[test]
    fn task_files_render_the_same() {
        use crate::gotemplate::{self, Limits, Value};
        let variables = variables();
        let of = |prefix: &str| -> Value {
            let own = VARIABLES.iter().filter_map(|(name, variable)| Some((name.strip_prefix(prefix)?, *variable)));
            own.map(|(name, variable)| (name, Value::from(variables.value(variable)))).collect()
        };
        let data = Value::from([("Run", of(".Run.")), ("Build", of(".Build."))]);
        for text in [
            "app:v1",
            "{{.Run.ID}}-{{ .Build.ID }}",
            "{{.Run.Registry}}/{{\t.Run.RegistryName }}:{{.Run.Date}}",
            "{{.Run.OS}}/{{.Run.Architecture}}/{{.Run.OSVersion}}[{{.Run.TaskName}}]",
            "a  {{- .Run.Branch -}}  b {{- .Run.Commit }} c {{ .Run.GitTag -}} d",
            "a }} b { c } {ü{{.Run.Branch}}ü",
        ] {
            let ours = render(text, &variables, LIMIT).expect(text);
            let theirs = gotemplate::render("t", text, &data, variables.created, &Limits::DEFAULT);
            assert_eq!(theirs, Ok(ours), "{text}");
        }
    }

    #[test]
    fn errors_name_the_expression_and_its_column() {
        let table = [
            ("ü {{.Run.Id}}", ".Run.Id", 3, Some(".Run.ID")),
            ("a:{{.Run.ID}}-{{ .Run.Comit }}", ".Run.Comit", 15, Some(".Run.Commit")),
            ("{{Run.ID}}", "Run.ID", 1, Some(".Run.ID")),
            ("{{ .Values.x }}", ".Values.x", 1, None),
            ("{{ if eq .Run.OS \"linux\" }}x", "if eq .Run.OS \"linux\"", 1, None),
            ("{{/* x */}}", "/* x */", 1, None),
            ("{{}}", "", 1, None),
            ("{{-.Run.ID}}", "-.Run.ID", 1, Some(".Run.ID")),
            ("{{ .Run.ID | upper }}", ".Run.ID | upper", 1, None),
        ];
        for (text, wanted, at, near) in table {
            match render(text, &variables(), LIMIT).expect_err(text) {
                TemplateError::Unknown { expression, column, nearest, known } => {
                    assert_eq!((expression.as_str(), column, nearest), (wanted, at, near), "{text}");
                    assert!(known.contains(".Run.ID, .Run.Registry"), "{known}");
                }
                error => panic!("{text}: {error}"),
            }
        }
        assert_eq!(render("ab{{.Run.ID}", &variables(), LIMIT), Err(TemplateError::NotClosed { column: 3 }));
        let error = render("{{.Run.Tag}}", &variables(), LIMIT).expect_err("unknown").to_string();
        assert!(
            error.starts_with("expression `{{.Run.Tag}}` at column 1 is unknown, did you mean `{{.Run."),
            "{error}"
        );
    }

    #[test]
    fn what_is_rendered_is_bounded_and_so_is_the_work() {
        assert_eq!(render("abc", &variables(), 3).as_deref(), Ok("abc"));
        assert_eq!(render("abcd", &variables(), 3), Err(TemplateError::TooLong));
        assert_eq!(render("{{.Run.Branch}}", &variables(), 4).as_deref(), Ok("main"));
        assert_eq!(render("{{.Run.Branch}}", &variables(), 3), Err(TemplateError::TooLong));
        let long = RunVariables { repository: "x".repeat(4096), ..variables() };
        assert_eq!(render(&"{{.Run.Repository}}".repeat(400_000), &long, LIMIT), Err(TemplateError::TooLong));
        // Minutes, if each expression took a look at the whole text.
        let many = "{{.Run.TaskName}}".repeat(400_000);
        assert_eq!(render(&many, &variables(), LIMIT).as_deref(), Ok(""));
        assert_eq!(
            render(&format!("{many}{{{{"), &variables(), LIMIT),
            Err(TemplateError::NotClosed { column: 6_800_001 })
        );
    }

    #[test]
    fn what_needs_the_source_is_known_before() {
        for (text, needs) in [
            ("app:v1", false),
            ("app:{{.Run.ID}}-{{.Run.Repository}}", false),
            ("app:{{ .Run.Commit }}", true),
            ("app:{{- .Run.Branch -}}", true),
            ("{{.Run.ID}}{{.Run.GitTag}}", true),
        ] {
            assert_eq!(needs_source(text), Ok(needs), "{text}");
        }
        assert!(needs_source("{{.Run.Commit").is_err());
    }

    #[test]
    fn dates() {
        let table = [
            (0, "19700101-000000z"),
            (951_782_400, "20000229-000000z"),
            (1_709_251_199, "20240229-235959z"),
            (1_735_689_600, "20250101-000000z"),
            (-1, "19691231-235959z"),
        ];
        for (seconds, text) in table {
            assert_eq!(date(Timestamp::from_micros(seconds * 1_000_000)), text);
        }
    }
}
