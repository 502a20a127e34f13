//! Where this user's Wardline keeps what must outlive it.

use std::ffi::OsString;
use std::path::PathBuf;

/// The relay's key, in the state directory.
pub const SERVER_KEY: &str = "server.key";

/// The key of the client commands, in the state directory.
pub const CLIENT_KEY: &str = "client.key";

/// The servers that were met, in the state directory.
pub const KNOWN_HOSTS: &str = "known_hosts";

/// The state directory: what systemd gives the service, else `$XDG_STATE_HOME/wardline`, else
/// `~/.local/state/wardline`. `None` where there is no home.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    state_directory_in(|name| std::env::var_os(name))
}

fn state_directory_in(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // What is relative would be another directory each time.
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let named = |name: &str| variable(name).map(PathBuf::from).and_then(absolute);
    // Of several directories the service's first is its own.
    let given = variable("STATE_DIRECTORY").and_then(|all| std::env::split_paths(&all).next());
    let of_home = |home: PathBuf| home.join(".local/state");
    given
        .and_then(absolute)
        .or_else(|| named("XDG_STATE_HOME").map(|state| state.join("wardline")))
        .or_else(|| named("LOCALAPPDATA").filter(|_| cfg!(windows)).map(|it| it.join("wardline")))
        .or_else(|| named("HOME").map(|home| of_home(home).join("wardline")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_directory_is_the_first_that_is_named() {
        let with = |pairs: &[(&str, &str)]| {
            let found = |name: &str| {
                let pair = pairs.iter().find(|(known, _)| *known == name);
                pair.map(|(_, value)| OsString::from(value))
            };
            state_directory_in(found)
        };
        let is = |path: &str| Some(PathBuf::from(path));
        let home = ("HOME", "/h");
        assert_eq!(with(&[home]), is("/h/.local/state/wardline"));
        let xdg = ("XDG_STATE_HOME", "/x");
        assert_eq!(with(&[home, xdg]), is("/x/wardline"));
        assert_eq!(with(&[home, ("XDG_STATE_HOME", "x")]), is("/h/.local/state/wardline"));
        let service = ("STATE_DIRECTORY", "/var/lib/wardline:/var/lib/other");
        assert_eq!(with(&[home, xdg, service]), is("/var/lib/wardline"));
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "")]), None);
    }
}
