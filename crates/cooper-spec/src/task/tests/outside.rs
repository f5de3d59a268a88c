//! Every fault of what stands outside of the steps, and what we say of it: secrets, networks, volumes.

use super::faults::check;
use super::*;

#[test]
fn secrets_networks_and_volumes() {
    let table = [
        ("secrets: [{keyvault: 'cooper://a'}]\n", "a secret has no id; write `id: NAME`"),
        ("secrets: [{id: a b, keyvault: 'cooper://a'}]\n", "secret id `a b` holds a blank"),
        ("secrets: [{id: '', keyvault: 'cooper://a'}]\n", "a secret has no id; write `id: NAME`"),
        ("secrets: [{id: a, keyvault: ''}]\n", "secret `a` says nowhere where it is kept"),
        ("secrets: [{id: a, clientID: 6f1a2b3c-0000-4000-8000-000000000000}]\n", "secret `a` says nowhere where it is"),
        ("secrets: [{id: a, keyvault: 'https://v/secrets'}]\n", "is not of the form https://VAULT/secrets/NAME"),
        ("secrets: [{id: a, keyvault: 'https://v/secrets/a/1/2'}]\n", "is not of the form https://VAULT/secrets/NAME"),
        ("secrets: [{id: a, keyvault: 'vault/a'}]\n", "`vault/a` is not a place of a secret; write https://VAULT"),
        (
            "secrets: [{id: a, keyvault: 'env://1'}]\n",
            "keyvault of secret `a` is not one; `env://1` is not of the form",
        ),
        ("secrets: [{id: a, keyvault: 'cooper://a/x'}]\n", "`cooper://a/x` is not of the form cooper://NAME"),
        ("secrets: [a]\n", "a secret is a text; write a map with the keys id, keyvault, clientID"),
        (
            "secrets: [{id: a}]\n",
            "secret `a` says nowhere where it is kept; write `keyvault: https://VAULT/secrets/NAME`",
        ),
        (
            "secrets: [{id: a, keyvault: 'http://v/secrets/a'}]\n",
            "keyvault of secret `a` is not one; `http://v/secrets/a` is not a place",
        ),
        ("secrets: [{id: a, keyvault: 'https://v/keys/a'}]\n", "is not of the form https://VAULT/secrets/NAME"),
        ("secrets: [{id: a, keyvault: 'cooper://a', clientID: x}]\n", "clientID `x` of secret `a` is no UUID"),
        (
            "secrets: [{id: a, keyvault: 'cooper://a'}, {id: a, keyvault: 'cooper://b'}]\n",
            "secret id `a` is there twice",
        ),
        ("networks: [{driver: bridge}]\n", "a network has no name"),
        ("networks: [{name: a b}]\n", "network name `a b` is not one"),
        ("networks: [{name: ''}]\n", "a network has no name; write `name: NAME`"),
        ("networks: [{name: -a}]\n", "network name `-a` is not one; write letters, digits, `-`, `_` and `.`"),
        (
            "networks: [{name: n2345678901234567890123456789012345678901234567890123456789012345}]\n",
            "is not one; write letters",
        ),
        (
            "volumes: [{name: v234567890123456789012345678901234567890123456789012345678, secret: {a: YQ==}}]\n",
            "is not one; write letters",
        ),
        ("networks: [{name: a}, {name: a}]\n", "network `a` is there twice"),
        ("volumes: [{secret: {a: YQ==}}]\n", "a volume has no name"),
        ("volumes: [{name: a.b, secret: {a: YQ==}}]\n", "volume name `a.b` is not one"),
        ("volumes: [{name: a, secret: {a: YQ==}}, {name: a, secret: {a: YQ==}}]\n", "volume `a` is there twice"),
        ("volumes: [{name: a}]\n", "volume `a` has no files; write `secret:` with a line `FILE: BASE64`"),
        ("volumes: [{name: a, secret: {}}]\n", "volume `a` has no files"),
        ("volumes: [{name: a, secret: {a/b: YQ==}}]\n", "file name `a/b` of volume `a` is not one"),
        ("volumes: [{name: a, secret: {..: YQ==}}]\n", "file name `..` of volume `a` is not one"),
        ("volumes: [{name: a, secret: {'': YQ==}}]\n", "file name `` of volume `a` is not one"),
        ("volumes: [{name: '', secret: {a: YQ==}}]\n", "a volume has no name; write `name: NAME`"),
        ("volumes: [{name: a, secret: {a: [x]}}]\n", "`a` is a list; write one text"),
        ("volumes: [{name: a, secret: ~}]\n", "volume `a` has no files"),
        (
            "volumes: [{name: a, secret: {a: '?'}}]\n",
            "file `a` of volume `a` is not base64; write `{{ .Secrets.ID | b64enc }}`",
        ),
    ];
    for (text, expected) in table {
        check(text, expected);
    }
    let volume = "volumes: [{name: keys, secret: {a: YQ==}}]\nsteps:\n";
    for (mounts, expected) in [
        (
            "- cmd: x\n  volumeMounts: [{name: kyes, mountPath: /a}]\n",
            "volume `kyes` is not declared; did you mean `keys`?",
        ),
        ("- cmd: x\n  volumeMounts: [{name: keys}]\n", "a mount needs `name` and `mountPath`"),
        ("- cmd: x\n  volumeMounts: [{name: keys, mountPath: ''}]\n", "a mount needs `name` and `mountPath`"),
        ("- build: .\n  volumeMounts: [{name: other, mountPath: /a}]\n", "volume `other` is not declared; declare it"),
        ("- cmd: x\n  volumeMounts: [{name: '', mountPath: /a}]\n", "a mount needs `name` and `mountPath`"),
        (
            "- cmd: x\n  volumeMounts: [{name: keys, mountPath: a}]\n",
            "mountPath `a` is not one; write the absolute path",
        ),
        ("- cmd: x\n  volumeMounts: [{name: keys, mountPath: /}]\n", "mountPath `/` is not one"),
        (
            "- cmd: x\n  volumeMounts: [{name: keys, mountPath: /a}, {name: keys, mountPath: /a/}]\n",
            "mountPath `/a/` is there twice",
        ),
        ("- push: [x]\n  volumeMounts: [{name: keys, mountPath: /a}]\n", "a push step has `volumeMounts`"),
        (
            "- cmd: x\n  volumeMounts: [{name: keys, mountPath: /workspace/.}]\n",
            "task.yaml:4:42: mountPath `/workspace/.` is where the workspace is mounted; write another directory",
        ),
        (
            "- cmd: x\n  volumeMounts: [{name: keys, mountPath: /acb/../acb//home/}]\n",
            "is where the steps' home is mounted",
        ),
        (
            "- cmd: x\n  platform: windows/amd64\n  volumeMounts: [{name: keys, mountPath: 'c:\\a'}]\n",
            "a step on windows/amd64 has `volumeMounts`; engines on Windows have no volumes in memory",
        ),
        (
            "- build: .\n  platforms: [linux/amd64, windows/amd64]\n  volumeMounts: [{name: keys, mountPath: /a}]\n",
            "a step on windows/amd64 has `volumeMounts`",
        ),
    ] {
        check(&format!("{volume}{mounts}"), expected);
    }
    let task = task(&format!(
        "{volume}- cmd: x\n  volumeMounts: [{{name: keys, mountPath: /a}}, {{name: keys, mountPath: /b}}]\n"
    ));
    assert_eq!(task.volumes[0].files["a"].expose(), b"a");
    assert_eq!(task.steps[0].volume_mounts.len(), 2);
    let none = self::task("steps:\n- push: [x]\n  volumeMounts: []\n- cmd: x\n  volumeMounts: []\n");
    assert!(none.steps.iter().all(|step| step.volume_mounts.is_empty()));
    let below =
        self::task(&format!("{volume}- cmd: x\n  volumeMounts: [{{name: keys, mountPath: /workspace/keys}}]\n"));
    assert_eq!(below.steps[0].volume_mounts[0].mount_path, "/workspace/keys");
}
