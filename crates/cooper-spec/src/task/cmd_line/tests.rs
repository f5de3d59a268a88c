//! Tables of the words of a container's step and what they become (contract §1.14).

use super::super::words::{self, Rules};
use super::*;

fn read_text(text: &str) -> ReadCmd {
    read(&words::split(text, Rules { windows: false, lines_go_on: false }).expect(text).words)
}

#[test]
fn an_image_and_words_with_docker_s_options_before() {
    let table: &[(&str, &str, &[&str])] = &[
        ("bash", "bash:latest", &[]),
        ("r.io/a/b:1 echo -e 'x y'", "r.io/a/b:1", &["echo", "-e", "x y"]),
        ("-t -i img --version", "img:latest", &["--version"]),
        ("-it --name x --rm img -v /:/x", "img:latest", &["-v", "/:/x"]),
        ("-e A=1 --env=B=2 -w /src img", "img:latest", &[]),
        ("localhost:5000/app", "localhost:5000/app:latest", &[]),
    ];
    for (text, image, words) in table {
        let read = read_text(text);
        let line = read.line.expect(text);
        assert_eq!(
            (line.image.to_string().as_str(), line.words.iter().map(String::as_str).collect::<Vec<_>>()),
            (*image, words.to_vec())
        );
    }
    let read = read_text("-it -e A=1 -e A=2 --env=B= -w /src img");
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!((read.env, read.working_directory.as_deref()), (vec![pair("A", "2"), pair("B", "")], Some("/src")));
    let line = read.line.expect("a line");
    assert!(line.tty && line.interactive && read.notes.is_empty());
}

#[test]
fn other_options_are_refused_with_the_property() {
    let table = [
        ("-v /:/host img", "flag `-v` is not allowed; mount a volume with the property `volumeMounts`"),
        ("--volume=/:/host img", "flag `--volume` is not allowed"),
        ("--mount type=bind,src=/,dst=/x img", "flag `--mount` is not allowed"),
        ("--privileged img", "use the property `privileged: true`"),
        ("-u root img", "use the property `user`"),
        ("--network host img", "use the property `network`"),
        ("-p 80:80 img", "use the property `ports`"),
        ("-d img", "use the property `detach: true`"),
        ("--entrypoint sh img", "use the property `entryPoint`"),
        ("--cpus 2 img", "use the property `cpus`"),
        ("--cap-add ALL img", "the agent's operator sets limits and rights"),
        ("--pid=host img", "the agent's operator sets limits and rights"),
        ("--frob img", "`a cmd step` has no flag `--frob`; allowed are --tty, --interactive, --env, --workdir"),
        ("--name x img", "flag `--name` has no effect; the step's `id` is its name"),
        ("-e HOME img", "flag `-e HOME` has no value; it is left out"),
        ("-t", "`cmd` names no image"),
        ("''", "`` is no image"),
        ("Bad/Image x", "image reference `Bad/Image` is not valid"),
        (
            "$Registry/x y",
            "image `$Registry/x` begins with a `$`; aliases such as `$Registry` count from `version: v1.1.0` on",
        ),
    ];
    for (text, expected) in table {
        let notes: Vec<String> =
            read_text(text).notes.iter().map(|note| format!("{}; {}", note.message, note.help)).collect();
        assert!(notes.iter().any(|note| note.contains(expected)), "{text}: {notes:?}");
    }
}
