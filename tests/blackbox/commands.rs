//! The commands that are clients, without a relay or with one that does not let them in.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::harness::{Outcome, wardline};

/// Somebody's home: what the commands keep is there and nowhere else.
#[derive(Debug)]
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().expect("a temporary directory"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("wardline")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = wardline();
        command.args(arguments).env("XDG_STATE_HOME", self.0.path()).env_remove("STATE_DIRECTORY");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(&mut self.command(arguments))
    }

    /// A key of that name, and whose it is.
    pub(crate) fn key(&self, name: &str) -> (String, String) {
        let path = text(&self.path(name));
        let made = self.run(&["keygen", &path]);
        assert_eq!(made.code, Some(0), "{made:?}");
        (path, made.stdout.trim().to_owned())
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

pub(crate) fn fails(outcome: &Outcome, code: i32, says: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    for word in says {
        assert!(outcome.stderr.contains(word), "{word:?} is not in: {}", outcome.stderr);
    }
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

/// The URL of a port where nobody listens; nor will another test, for it stays bound.
fn nowhere() -> String {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let addr = socket.local_addr().expect("it is bound").as_socket().expect("IPv4");
    std::mem::forget(socket);
    format!("native://{addr}")
}

#[test]
fn keygen_makes_a_key_and_replaces_none() {
    let home = Home::new();
    let (path, identity) = home.key("agent.key");
    assert!(identity.len() == 64 && identity.bytes().all(|b| b.is_ascii_hexdigit()), "{identity}");
    let seed = fs::read_to_string(&path).expect("it is there");
    assert!(seed.len() == 65 && !seed.contains(&identity));
    fails(&home.run(&["keygen", &path]), 1, &[&path, "there is a file already"]);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), seed);
    let shown = home.run(&["keygen", "--show", &path]);
    assert_eq!((shown.code, shown.stdout.trim()), (Some(0), identity.as_str()));
    let told = |arguments: &[&str]| {
        let outcome = home.run(arguments);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let said: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
        said
    };
    let wanted = serde_json::json!({ "identity": identity, "file": path });
    assert_eq!(told(&["keygen", "--show", "--json", &path]), wanted);
    let other = text(&home.path("other.key"));
    let made = told(&["keygen", "--json", &other]);
    assert_eq!(made["file"], other.as_str());
    let third = home.run(&["keygen", "--json", &text(&home.path("third.key"))]);
    assert!(third.stderr.ends_with("is secret\n"), "{third:?}");
    assert_eq!(told(&["keygen", "--show", "--json", &other]), made);
    assert_ne!(made["identity"], identity.as_str());
    let first = home.run(&["keygen"]);
    assert_eq!(first.code, Some(0), "{first:?}");
    assert!(home.state().join("client.key").exists());
    assert_ne!(first.stdout.trim(), identity);
    fails(&home.run(&["keygen"]), 1, &["client.key"]);
}

#[cfg(all(unix, not(wardline_portable)))]
#[test]
fn a_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let (path, _) = home.key("agent.key");
    let mode = fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    let refused = home.run(&["pub", "t", "x", "--key", &path, "-s", &nowhere()]);
    fails(&refused, 3, &[&path, "0644", "chmod 600"]);
}

#[test]
fn without_a_relay_each_says_so_and_how_to_get_one() {
    let home = Home::new();
    let url = nowhere();
    let somebody = home.key("other.key").1;
    let calls: [&[&str]; 7] = [
        &["pub", "t", "x"],
        &["sub", "t"],
        &["req", &somebody, "x"],
        &["who", "t"],
        &["rtt"],
        &["bench", "--seconds", "1"],
        &["reply", "-s", &url, "--", "cat"],
    ];
    for call in calls {
        let mut arguments = call.to_vec();
        if !call.contains(&"-s") {
            arguments.extend(["-s", &url]);
        }
        let outcome = home.run(&arguments);
        fails(&outcome, 5, &[&url, "is a relay running there?"]);
        assert_eq!(outcome.stdout, "", "{call:?}");
    }
    // The key was made on the way, once, and was said.
    assert!(home.state().join("client.key").exists());
}

#[test]
fn a_first_use_makes_a_key_and_says_so() {
    let home = Home::new();
    let call = ["pub", "t", "x", "-s", &nowhere()];
    let first = home.run(&call);
    assert!(first.stderr.contains("made your key"), "{first:?}");
    let whose = home.run(&["keygen", "--show"]).stdout;
    assert!(first.stderr.contains(&format!("you are ed25519:{}", whose.trim())), "{first:?}");
    assert!(!home.run(&call).stderr.contains("made your key"));
}

#[test]
fn what_is_kept_nowhere_must_be_named() {
    let run = |arguments: &[&str]| {
        let mut command = wardline();
        for name in ["HOME", "XDG_STATE_HOME", "STATE_DIRECTORY", "LOCALAPPDATA"] {
            command.env_remove(name);
        }
        Outcome::of(command.args(arguments))
    };
    let home = Home::new();
    let (key, identity) = home.key("agent.key");
    let url = nowhere();
    fails(&run(&["sub", "t", "-s", &url]), 3, &["client.key", "--key FILE"]);
    fails(&run(&["sub", "t", "-s", &url, "--key", &key]), 3, &["--known-hosts FILE", "--pin HEX"]);
    fails(&run(&["sub", "t", "-s", &url, "--key", &key, "--pin", &identity]), 5, &[&url]);
    let hosts = text(&home.path("hosts"));
    fails(&run(&["sub", "t", "-s", &url, "--key", &key, "--known-hosts", &hosts]), 5, &[&url]);
    fails(&run(&["keygen"]), 3, &["there is no home"]);
    let serve = ["serve", "-l", "native://127.0.0.1:0"];
    fails(&run(&serve), 3, &["native.key", "wardline keygen FILE"]);
}

#[test]
fn files_that_are_wrong_are_named() {
    let home = Home::new();
    let hosts = home.path("hosts");
    fs::write(&hosts, "# mine\nhost:1 nonsense\n").expect("it can be written");
    let hosts = text(&hosts);
    let url = nowhere();
    let call = ["sub", "t", "-s", &url, "--known-hosts", &hosts];
    fails(&home.run(&call), 3, &[&format!("{hosts}:2")]);
    let missing = text(&home.path("none.key"));
    let call = ["sub", "t", "-s", &url, "--key", &missing];
    fails(&home.run(&call), 3, &[&missing, "wardline keygen"]);
    fs::write(&missing, "no key\n").expect("it can be written");
    set_private(&missing);
    fails(&home.run(&call), 3, &[&missing, "64 hexadecimal digits"]);
}

#[cfg(unix)]
fn set_private(path: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

#[cfg(not(unix))]
fn set_private(_: &str) {}

#[test]
fn a_wrong_call_is_usage() {
    let home = Home::new();
    let calls: [(&[&str], &str); 10] = [
        (&["pub"], "TOPIC"),
        (&["pub", "a*", "x"], "a topic's name is"),
        (&["pub", "t", "x", "-s", "line://h:1"], "native://HOST:PORT"),
        (&["sub", "t", "--from", "yesterday"], "last:N"),
        (&["sub", "t", "--pin", "12"], "64 hexadecimal digits"),
        (&["req", "alice", "x"], "handle"),
        (&["reply"], "COMMAND"),
        (&["sub", "t", "--timeout", "5"], "a time with its unit"),
        (&["pub", "t", "x", "--class", "loud"], "urgent, interactive, normal, bulk"),
        (&["pub", "t", "x", "--ttl", "0s"], "must be from 1ms to 49d"),
    ];
    for (call, says) in calls {
        fails(&home.run(call), 2, &[says]);
    }
}

#[test]
fn a_file_of_keys_is_checked_with_the_settings() {
    let home = Home::new();
    let (key, identity) = home.key("server.key");
    let list = home.path("keys");
    fs::write(&list, format!("{identity} publish=a/*\n{identity}x\n")).expect("it can be written");
    let authorized = format!("native.authorized_keys={}", list.display());
    let place = format!("{}:2:1: must be a key", list.display());
    for call in [&["check"][..], &["serve", "-t"], &["serve", "-l", "line://127.0.0.1:0"]] {
        let call = [call, &["--set", &authorized]].concat();
        fails(&home.run(&call), 3, &["native.authorized_keys: ", &place]);
    }
    fs::write(&list, format!("{identity} publish=a/*\n")).expect("it can be written");
    let good = home.run(&["check", "--set", &authorized, "--key", &key]);
    assert_eq!(good.code, Some(0), "{good:?}");
    for line in ["native.open = \"loopback\"", "native.max_payload = \"64KiB\"", "native.key = "] {
        assert!(good.stdout.contains(line), "{line} is not in {}", good.stdout);
    }
    fails(&home.run(&["check", "--key", "/none"]), 3, &["native.key: /none", "wardline keygen"]);
}
