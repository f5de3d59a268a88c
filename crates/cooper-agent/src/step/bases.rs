//! The base images of a build, from what the Dockerfile names and what the engine resolved.

use cooper_engine::message::{BaseImage, Frontend};
use cooper_ports::engine::ResolvedBase;
use cooper_spec::dockerfile::Dependencies;
use cooper_types::{ImageRef, RegistryName, RepositoryName};

/// The registry of references that name none, as engines have it.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where that registry keeps the images that people name with one word.
const DEFAULT_NAMESPACE: &str = "library/";

/// The bases in the Dockerfile's words and order, then those that only the engine knows of (a frontend's own, say).
pub(super) fn bases(scanned: Option<&Dependencies>, resolved: &[ResolvedBase]) -> Vec<BaseImage> {
    let mut unmatched: Vec<&ResolvedBase> = resolved.iter().collect();
    let mut bases = Vec::new();
    let none = Dependencies::default();
    let scanned = scanned.unwrap_or(&none);
    let runtime = scanned.runtime.iter().map(|reference| (reference, true));
    let buildtime = scanned.buildtime.iter().map(|reference| (reference, false));
    for (reference, runtime) in runtime.chain(buildtime) {
        let full = text_in_full(reference);
        let digest = resolved.iter().find(|base| base.reference == full).map(|base| base.digest.clone());
        unmatched.retain(|base| base.reference != full);
        bases.push(BaseImage { reference: reference.clone(), digest, runtime });
    }
    bases.extend(unmatched.into_iter().map(|base| BaseImage {
        reference: base.reference.clone(),
        digest: Some(base.digest.clone()),
        runtime: false,
    }));
    bases
}

/// The frontend that a Dockerfile names, with the digest that the engine resolved it to. It is no base.
pub(super) fn frontend_of(named: Option<String>, bases: &mut Vec<BaseImage>) -> Option<Frontend> {
    let reference = named?;
    let full = text_in_full(&reference);
    let digest = bases.iter().find(|base| base.reference == full).and_then(|base| base.digest.clone());
    bases.retain(|base| base.reference != full || base.runtime);
    Some(Frontend { reference, digest })
}

/// A reference as an engine writes it out; a text that is none stays as it is.
pub(super) fn text_in_full(reference: &str) -> String {
    ImageRef::parse(reference).map_or_else(|_| reference.to_owned(), |image| in_full(image).to_string())
}

/// A reference with everything that engines add to it.
pub(super) fn in_full(image: ImageRef) -> ImageRef {
    let image = image.tagged_by_default();
    match &image.registry {
        // `index.docker.io` is the same registry's older name.
        Some(registry) if registry.as_str() != "index.docker.io" && registry.as_str() != DEFAULT_REGISTRY => image,
        _ => {
            let registry = RegistryName::parse(DEFAULT_REGISTRY).expect("a host name is a registry's");
            let spaced = format!("{DEFAULT_NAMESPACE}{}", image.repository);
            let repository = match image.repository.as_str().contains('/') {
                true => image.repository,
                // One that is too long in full stays as it is: no registry has it in either form.
                false => RepositoryName::parse(&spaced).unwrap_or(image.repository),
            };
            ImageRef { registry: Some(registry), repository, ..image }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cooper_types::Digest;

    #[test]
    fn references_are_written_out_as_engines_do() {
        let digest = Digest::sha256(b"x");
        let check = |text: &str, expect: &str| assert_eq!(text_in_full(text), expect);
        check("busybox", "docker.io/library/busybox:latest");
        check("team/app:1", "docker.io/team/app:1");
        check("docker.io/busybox:1", "docker.io/library/busybox:1");
        check("localhost:5000/base/busybox", "localhost:5000/base/busybox:latest");
        check(&format!("busybox@{digest}"), &format!("docker.io/library/busybox@{digest}"));
        check(&format!("r.io/a:1@{digest}"), &format!("r.io/a:1@{digest}"));
        check("Not A Reference", "Not A Reference");
    }

    #[test]
    fn the_origin_of_the_final_stage_is_told_apart() {
        let digest = |text: &str| Digest::sha256(text.as_bytes());
        let resolved = |reference: &str| ResolvedBase { reference: reference.into(), digest: digest(reference) };
        let scanned = Dependencies {
            runtime: Some("alpine".into()),
            buildtime: vec!["localhost:5000/sdk:2".into(), "gone:1".into()],
            copied: Vec::new(),
        };
        let engine = [
            resolved("docker.io/docker/dockerfile:1"),
            resolved("docker.io/library/alpine:latest"),
            resolved("localhost:5000/sdk:2"),
        ];
        let base = |reference: &str, of: Option<&str>, runtime| BaseImage {
            reference: reference.into(),
            digest: of.map(digest),
            runtime,
        };
        let expect = vec![
            base("alpine", Some("docker.io/library/alpine:latest"), true),
            base("localhost:5000/sdk:2", Some("localhost:5000/sdk:2"), false),
            base("gone:1", None, false),
            base("docker.io/docker/dockerfile:1", Some("docker.io/docker/dockerfile:1"), false),
        ];
        assert_eq!(bases(Some(&scanned), &engine), expect);
        assert_eq!(
            bases(None, &engine[1..2]),
            [base("docker.io/library/alpine:latest", Some("docker.io/library/alpine:latest"), false)]
        );
    }
}
