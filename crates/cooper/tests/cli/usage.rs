//! Wrong usage: one line that names the object, a hint where there is one, and the right exit code.

use super::Cooper;

#[tokio::test]
async fn wrong_arguments_end_with_2() {
    let cooper = Cooper::new();
    cooper.run(["build", "--nonsense", "."]).await.fails_with(2, &["--nonsense"]);
    cooper.run(["frobnicate"]).await.fails_with(2, &["frobnicate"]);
    cooper.run(["build"]).await.fails_with(2, &["required"]);
    cooper.run(["build", "--timeout", "0", "."]).await.fails_with(2, &["--timeout"]);
    cooper.run(["build", "git@github.com:a/b.git"]).await.fails_with(2, &["https://github.com/a/b.git"]);
    cooper.run(["build", "-f", "../x", "https://github.com/a/b.git"]).await.fails_with(2, &["--file `../x`"]);
    cooper.run(["credential", "set", "https://github.com"]).await.fails_with(2, &["write the host alone"]);
    cooper.run(["secret", "set", "NPM"]).await.fails_with(2, &["secret name `NPM`", "lower-case"]);
    cooper.run(["secret", "delete", "npm/x"]).await.fails_with(2, &["`npm/x`", "NAME or NAME/VERSION"]);
    cooper.run(["secret", "allow", "npm"]).await.fails_with(2, &["required"]);
    cooper.run(["build", "--platform", "linux/mips", "."]).await.fails_with(2, &["platform `linux/mips`"]);
    cooper.run(["runs", "list", "--status", "Done"]).await.fails_with(2, &["Done", "Queued, Started, Running"]);
    cooper.run(["runs", "show", "xx"]).await.fails_with(2, &["run id `xx`"]);
    cooper.run(["task", "timer", "next", "-n", "nightly"]).await.fails_with(2, &["`cooper task timer next NAME`"]);
    let swallowed = ["webhook", "create", "--uri", "https://a.example", "--actions", "push", "deploy5"];
    cooper.run(swallowed).await.fails_with(2, &["no webhook is named", "`deploy5` was taken for an action"]);
    let nothing = ["task", "timer", "update", "-n", "nightly", "--timer-name", "t1"];
    cooper.run(nothing).await.fails_with(2, &["no flag says what to change"]);
    cooper.run(["webhook", "update", "deploy"]).await.fails_with(2, &["no flag says what to change"]);
    cooper.run(["token", "create", "dev", "--scope", "root"]).await.fails_with(2, &["scope `root`"]);
    cooper.run(["token", "revoke", "NOT AN ID"]).await.fails_with(2, &["token id `NOT AN ID`"]);
}

#[tokio::test]
async fn nothing_is_deleted_where_nobody_can_be_asked() {
    let cooper = Cooper::new();
    // Nobody listens there: whoever agrees comes further.
    let server = ["--server", "http://127.0.0.1:9"];
    for line in [["task", "delete", "nightly"], ["webhook", "delete", "deploy"], ["repository", "delete", "team/app"]] {
        for answer in ["n\n", "y\n"] {
            let ended = cooper.piped(line.iter().chain(&server), answer).await;
            ended.fails_with(2, &["there is no terminal to ask at"]);
            assert!(ended.stderr.contains("hint: agree with --yes"), "{ended:?}");
        }
        let agreed = [&line[..], &["--yes"], &server].concat();
        cooper.run(agreed).await.fails_with(5, &["can't be reached"]);
    }
}

#[tokio::test]
async fn a_build_needs_a_folder_with_a_dockerfile() {
    let cooper = Cooper::new();
    let to = ["--server", "http://127.0.0.1:9", "-t", "app"];
    cooper.run(["build", "nowhere"].iter().chain(&to)).await.fails_with(2, &["`nowhere` does not exist"]);
    cooper.write("file", "");
    cooper.run(["build", "file"].iter().chain(&to)).await.fails_with(2, &["`file` is not a folder"]);
    cooper.write("src/main.c", "");
    cooper.run(["build", "src"].iter().chain(&to)).await.fails_with(2, &["no Dockerfile", "src/Dockerfile"]);
    cooper.run(["build", "src", "-f", "x.dockerfile"].iter().chain(&to)).await.fails_with(2, &["x.dockerfile"]);
}

#[tokio::test]
async fn a_server_is_needed_and_must_be_there() {
    let cooper = Cooper::new();
    let ended = cooper.run(["runs", "list"]).await;
    ended.fails_with(2, &["no server is known"]);
    assert!(ended.stderr.contains("hint: log in with `cooper login URL`"), "{ended:?}");

    // A port that was free a moment ago: nobody listens.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let server = format!("http://{free}");
    let login = ["login", &server, "--token-file", "t"];
    for args in [&["runs", "list"][..], &["logs", "ca1"], &["logs", "ca1", "--follow"], &login] {
        cooper.write("t", "token\n");
        let mut command = cooper.command(args);
        command.env("COOPER_SERVER", &server);
        let ended = super::Ended::new(command.output().await.expect("the binary runs"));
        ended.fails_with(5, &[&server, "can't be reached", "refused"]);
        assert!(ended.stderr.contains("hint: start a server with `cooper serve`"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_token_does_not_travel_in_clear() {
    let cooper = Cooper::new();
    cooper.write("t", "token\n");
    let ended = cooper.run(["login", "http://build.example.com", "--token-file", "t"]).await;
    ended.fails_with(2, &["http://build.example.com", "plain http"]);
    assert!(ended.stderr.contains("hint: use https, or accept the risk with --insecure"), "{ended:?}");
    let ended = cooper.run(["login", "https://me:hunter2@build.example.com", "--token-file", "t"]).await;
    ended.fails_with(2, &["must not carry a user name"]);
    assert!(!ended.stderr.contains("hunter2"), "{ended:?}");
    cooper.run(["login", "http://localhost:9"]).await.fails_with(2, &["no token is given"]);
    cooper.run(["login", "http://localhost:9", "--token-stdin"]).await.fails_with(2, &["not a token"]);
}

#[tokio::test]
async fn all_faults_of_a_servers_settings_come_at_once() {
    let cooper = Cooper::new();
    cooper.write("config/cooper.toml", "slots = 0\nanonymus-pull = true\n");
    let mut command = cooper.command(["serve", "--listen", "here", "--log-format", "xml"]);
    command.env("COOPER_ENGINE", "tcp://1.2.3.4:2375");
    let ended = super::Ended::new(command.output().await.expect("the binary runs"));
    assert_eq!(ended.code, Some(2));
    for text in [
        "--listen: `here`",
        "--log-format: `xml`",
        "COOPER_ENGINE: `tcp://1.2.3.4:2375`",
        "cooper.toml:1: key `slots`: `0`",
        "cooper.toml:2: unknown key `anonymus-pull`; did you mean `anonymous-pull`?",
    ] {
        assert!(ended.stderr.contains(text), "`{text}` is missing:\n{}", ended.stderr);
    }
    assert_eq!(ended.stderr.lines().count(), 5, "{}", ended.stderr);
}

#[tokio::test]
async fn data_goes_to_standard_output_and_a_closed_pipe_is_no_fault() {
    let cooper = Cooper::new();
    let ended = cooper.run(["version"]).await;
    assert_eq!(
        (ended.stdout.as_str(), ended.stderr.as_str()),
        (concat!("cooper ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
    let ended = cooper.run(["openapi"]).await;
    ended.succeeds();
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert!(document["paths"]["/api/v1/runs/{id}/log/events"]["get"].is_object());

    let (reader, writer) = std::io::pipe().expect("pipe");
    drop(reader);
    let mut command = cooper.command(["openapi"]);
    command.stdout(writer);
    let ended = super::Ended::new(command.output().await.expect("the binary runs"));
    ended.succeeds();
    assert_eq!(ended.stderr, "");
}

#[tokio::test]
async fn logging_out_without_a_login_is_fine() {
    let cooper = Cooper::new();
    cooper.run(["logout"]).await.succeeds();
    cooper.run(["logout", "localhost:5000"]).await.succeeds();
    cooper.run(["logout", "ftp://x"]).await.fails_with(2, &["ftp://x"]);
}
