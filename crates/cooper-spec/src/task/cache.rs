//! `cache: enabled`: whether a build's cache is kept, and under which name (contract §1.12).

use cooper_types::{ImageRef, Platform, RegistryName, Tag};

use super::fields::{Fields, Report, Told, clip};
use super::model::{Cache, TaskWork};
use super::read::Shared;

/// What a run without a task is called in the name.
const QUICK: &str = "quickrun";

/// What `cache` of a step comes to.
pub(super) fn of_step(
    fields: &Fields<'_>,
    work: Option<&TaskWork>,
    platforms: &[Platform],
    id: &Told<String>,
    shared: &Shared<'_>,
    report: &mut Report<'_>,
) -> Cache {
    let told = fields.choice("cache", report);
    let (Some(told), Some(TaskWork::Build(line))) = (told, work) else { return Cache::Disabled };
    if told.value == "disabled" {
        return Cache::Disabled;
    }
    let run = &shared.inputs.run;
    if platforms.first().unwrap_or(&run.platform).os() == "windows" {
        report.warn(told.at, "`cache` has no effect on Windows", "builds there have the engine's cache alone");
        return Cache::Disabled;
    }
    let mut is_none = |tag: String| {
        let message = format!("the cache's tag `{}` is not one", clip(&tag));
        report.warn(told.at, message, "the build goes on without; give the step a shorter id");
    };
    match name(&line.images, &run.registry, &run.task_name, &id.value) {
        Ok(Some(name)) => {
            let several = platforms.iter().filter(|_| platforms.len() > 1);
            several.filter_map(|platform| of_platform(&name, platform).err()).for_each(is_none);
            Cache::Enabled(Some(name))
        }
        Ok(None) => {
            let message = format!("the cache of step `{}` has no name", clip(&id.value));
            report.warn(told.at, message, "give the image a tag with `-t`: the cache is kept beside it");
            Cache::Enabled(None)
        }
        Err(tag) => {
            is_none(tag);
            Cache::Enabled(None)
        }
    }
}

/// `HOST/PATH:cache_TASK_STEP`, from the first tag that names a registry, or else the first tag in the run's registry. None
/// if there are no tags; an error is the tag that would be too long.
fn name(images: &[ImageRef], registry: &RegistryName, task: &str, step: &str) -> Result<Option<ImageRef>, String> {
    let named = images.iter().find(|image| image.registry.is_some()).or(images.first());
    let Some(image) = named else { return Ok(None) };
    let task = if task.is_empty() { QUICK } else { task };
    let text = format!("cache_{task}_{step}");
    let tag = Tag::parse(&text).map_err(|_| text)?;
    let registry = image.registry.clone().unwrap_or_else(|| registry.clone());
    Ok(Some(ImageRef { registry: Some(registry), repository: image.repository.clone(), tag: Some(tag), digest: None }))
}

/// The name of the cache of one of a build's platforms: of one name, each would overwrite the others'. An error is the tag
/// that would be too long.
pub(crate) fn of_platform(name: &ImageRef, platform: &Platform) -> Result<ImageRef, String> {
    let tag = name.tag.as_ref().map(Tag::as_str).unwrap_or_default();
    let text = format!("{tag}_{}", platform.to_string().replace('/', "-"));
    let tag = Tag::parse(&text).map_err(|_| text)?;
    Ok(ImageRef { tag: Some(tag), ..name.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_acr() {
        let registry = RegistryName::parse("r.io").expect("valid");
        let check = |images: &[&str], task: &str, step: &str, expected: Result<Option<&str>, &str>| {
            let images: Vec<ImageRef> = images.iter().map(|text| ImageRef::parse(text).expect(text)).collect();
            let name = name(&images, &registry, task, step).map(|name| name.map(|name| name.to_string()));
            assert_eq!(name, expected.map(|name| name.map(str::to_owned)).map_err(str::to_owned), "{images:?}");
        };
        check(&[], "", "b", Ok(None));
        check(&["app:1"], "", "b", Ok(Some("r.io/app:cache_quickrun_b")));
        check(&["app:1", "x.io/team/app"], "nightly", "b", Ok(Some("x.io/team/app:cache_nightly_b")));
        check(&["localhost:5000/a:1"], "t", "acb_step_0", Ok(Some("localhost:5000/a:cache_t_acb_step_0")));
        let long = "s".repeat(128);
        check(&["app"], "", &long, Err(&format!("cache_quickrun_{long}")));
    }
}
