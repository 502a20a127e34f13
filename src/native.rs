//! What native clients are served with: the relay's key, and the rules of who may do what.

use std::path::PathBuf;
use std::sync::Arc;

use wardline_client::keys::{self, KeyFileError};
use wardline_client::state::{SERVER_KEY, state_directory};
use wardline_core::native::{Identity, SigningKey};
use wardline_host::access::{Keyring, Open, Rules};
use wardline_host::net::Listen;
use wardline_host::settings::{Loaded, NativeSettings, Origin};

use crate::exit::Failure;

/// The relay's keys and its rules.
#[derive(Debug)]
pub(crate) struct Native {
    /// The first one first; at least one.
    pub(crate) keys: Vec<SigningKey>,
    pub(crate) keyring: Arc<Keyring>,
}

/// What the operator should know of it, each a line of the log.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Who the relay is, where native clients can come.
    pub(crate) identity: Option<Identity>,
    pub(crate) notes: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

/// Whether what the settings name can be used; without making anything.
pub(crate) fn check(settings: &NativeSettings) -> Result<(), Failure> {
    rules(settings)?;
    named(settings).map(|_| ())
}

/// Reads the key and the rules, or makes the key. Where no key can be had, the native listener that
/// nobody asked for is taken out of the settings; one that was asked for is a failure.
pub(crate) fn prepare(loaded: &mut Loaded) -> Result<(Option<Native>, Said), Failure> {
    let mut said = Said::default();
    let rules = rules(&loaded.settings.native)?;
    if !loaded.settings.server.listen.iter().any(|listen| listen.dialects().native()) {
        return Ok((None, said));
    }
    let keys = match own_keys(&loaded.settings.native, state_directory()) {
        Ok((keys, made)) => {
            said.notes.extend(made.map(|path| {
                let path = path.display();
                format!("made this relay's key, {path}: clients will remember it, so keep it")
            }));
            keys
        }
        Err(failure) if *loaded.origin("server.listen") == Origin::Default => {
            loaded.settings.server.listen.retain(|listen| !listen.dialects().native());
            said.warnings.push(format!("no native listener: {failure}"));
            return Ok((None, said));
        }
        Err(failure) => return Err(failure),
    };
    let settings = &loaded.settings;
    said.warnings.extend(shut_out(&settings.server.listen, &settings.native, &rules));
    said.warnings.extend(left_open(&settings.native));
    let mut identities = keys.iter().map(SigningKey::identity);
    said.identity = identities.next();
    said.notes.extend(
        identities.map(|old| format!("answers as ed25519:{old}, too, to those who expect that")),
    );
    Ok((Some(Native { keys, keyring: Arc::new(Keyring::new(rules)) }), said))
}

/// The rules of the settings.
pub(crate) fn rules(settings: &NativeSettings) -> Result<Rules, Failure> {
    Rules::from_settings(settings)
        .map_err(|error| Failure::Settings(format!("native.authorized_keys: {error}")))
}

/// The keys whose files the settings name.
fn named(settings: &NativeSettings) -> Result<Vec<SigningKey>, Failure> {
    let files = settings.key.0.iter();
    files.map(|path| keys::load(path)).collect::<Result<_, _>>().map_err(|error| unusable(&error))
}

/// The relay's keys, and the file of one where that was made now.
fn own_keys(
    settings: &NativeSettings,
    state: Option<PathBuf>,
) -> Result<(Vec<SigningKey>, Option<PathBuf>), Failure> {
    let named = named(settings)?;
    if !named.is_empty() {
        return Ok((named, None));
    }
    let Some(state) = state else {
        let said = "native.key: there is no home to keep a key in; make one with `wardline keygen \
                    FILE` and name it";
        return Err(Failure::Settings(said.to_owned()));
    };
    let path = state.join(SERVER_KEY);
    match keys::load_or_generate(&path) {
        Ok((key, made)) => Ok((vec![key], made.then_some(path))),
        Err(error) => {
            let said = "make one elsewhere with `wardline keygen FILE` and name it";
            Err(Failure::Settings(format!("native.key: {error}; {said}")))
        }
    }
}

fn unusable(error: &KeyFileError) -> Failure {
    Failure::Settings(format!("native.key: {error}"))
}

/// A listener that nobody can use, in words.
fn shut_out(listens: &[Listen], settings: &NativeSettings, rules: &Rules) -> Option<String> {
    if rules.let_nobody_in() {
        return Some(
            "native.open is never, and there is no native.authorized_keys: nobody can \
                     connect to a native listener"
                .to_owned(),
        );
    }
    let only_home = settings.authorized_keys.is_none() && rules.let_only_home_in();
    let reached = |listen: &&Listen| listen.dialects().native() && !listen.is_loopback();
    let listen = listens.iter().find(reached).filter(|_| only_home)?;
    Some(format!(
        "{listen} takes native clients of this machine only: there is no native.authorized_keys, and \
         native.open is loopback"
    ))
}

/// A list of keys that does not keep others out, in words: behind a proxy on this machine all who
/// come are of this machine.
fn left_open(settings: &NativeSettings) -> Option<String> {
    let open = settings.authorized_keys.is_some() && settings.open == Open::Loopback;
    open.then(|| {
        "native.open is loopback: whoever comes from this machine may connect without standing in \
         native.authorized_keys, and behind a proxy on this machine that is everybody; \
         native.open=never lets in those keys alone"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wardline_host::settings::Sources;

    use super::*;

    fn load(sets: &[&str]) -> Loaded {
        let sets = sets.iter().filter(|set| !set.is_empty());
        let sets = sets.map(|set| (*set).to_owned()).collect();
        Sources { sets, ..Sources::default() }.load().unwrap()
    }

    #[test]
    fn a_named_key_is_read_and_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let sets = format!("native.key={}", path.display());
        let missing = prepare(&mut load(&[&sets, "server.listen=native://h:1"])).unwrap_err();
        assert_eq!(missing.code(), 3);
        assert!(missing.to_string().contains("make one with: wardline keygen"), "{missing}");
        assert!(check(&load(&[&sets]).settings.native).is_err());
        assert!(!path.exists());
        let key = keys::generate(&path).unwrap();
        let mut loaded = load(&[&sets]);
        check(&loaded.settings.native).unwrap();
        let (native, said) = prepare(&mut loaded).unwrap();
        assert_eq!(native.unwrap().keys[0].identity(), key.identity());
        assert_eq!(said.identity, Some(key.identity()));
        assert!(said.notes.is_empty() && said.warnings.is_empty(), "{said:?}");
        assert_eq!(loaded.settings.server.listen.len(), 2);
        // Of several the first one is who the relay is; each has to be there.
        let older = dir.path().join("older");
        let both = format!("native.key=[\"{}\",\"{}\"]", path.display(), older.display());
        assert_eq!(prepare(&mut load(&[&both])).unwrap().1.warnings.len(), 1);
        assert!(check(&load(&[&both]).settings.native).is_err());
        let older = keys::generate(&older).unwrap().identity();
        check(&load(&[&both]).settings.native).unwrap();
        let (native, said) = prepare(&mut load(&[&both])).unwrap();
        let identities = native.unwrap().keys.iter().map(SigningKey::identity).collect::<Vec<_>>();
        assert_eq!(
            (identities, said.identity),
            (vec![key.identity(), older], Some(key.identity()))
        );
        assert!(said.notes.len() == 1 && said.notes[0].contains(&older.to_string()), "{said:?}");
    }

    #[test]
    fn a_key_is_made_in_the_state_directory() {
        let dir = tempfile::tempdir().unwrap();
        let settings = NativeSettings::default();
        let (first, made) = own_keys(&settings, Some(dir.path().join("state"))).unwrap();
        assert_eq!(made, Some(dir.path().join("state/server.key")));
        let (second, made) = own_keys(&settings, Some(dir.path().join("state"))).unwrap();
        assert_eq!((first[0].identity(), None), (second[0].identity(), made));
        for state in [None, Some(dir.path().join("state/server.key"))] {
            let failure = own_keys(&settings, state).unwrap_err();
            assert_eq!(failure.code(), 3);
            assert!(failure.to_string().contains("wardline keygen FILE` and name it"), "{failure}");
        }
    }

    #[test]
    fn without_a_key_only_what_was_asked_for_fails() {
        let dir = tempfile::tempdir().unwrap();
        let missing = format!("native.key={}", dir.path().join("none").display());
        let mut loaded = load(&[&missing]);
        let (native, said) = prepare(&mut loaded).unwrap();
        assert!(native.is_none() && said.identity.is_none());
        assert!(said.warnings[0].starts_with("no native listener: native.key: "), "{said:?}");
        let listen: Vec<_> = loaded.settings.server.listen.iter().map(Listen::to_string).collect();
        assert_eq!(listen, ["line://127.0.0.1:8888/main"]);
        for url in ["native://127.0.0.1:0", "mixed://127.0.0.1:0"] {
            let listen = format!("server.listen={url}");
            assert_eq!(prepare(&mut load(&[&missing, &listen])).unwrap_err().code(), 3);
        }
        // Who serves lines alone needs none.
        let (native, said) = prepare(&mut load(&[&missing, "server.listen=line://h:1"])).unwrap();
        assert!(native.is_none() && said.warnings.is_empty());
    }

    #[test]
    fn listeners_that_shut_everybody_out_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (path, list) = (dir.path().join("k"), dir.path().join("keys"));
        let key = keys::generate(&path).unwrap();
        fs::write(&list, key.identity().to_string()).unwrap();
        let list = format!("native.authorized_keys={}", list.display());
        let warnings = |listen: &str, list: &str, open: &str| {
            let (key, listen) =
                (format!("native.key={}", path.display()), format!("server.listen={listen}"));
            prepare(&mut load(&[&key, &listen, list, open])).unwrap().1.warnings
        };
        assert!(
            warnings("native://h:1", "", "native.open=never")[0].contains("nobody can connect")
        );
        assert!(warnings("native://0.0.0.0:1", "", "")[0].contains("takes native clients of this"));
        assert!(
            warnings("mixed://[::]:1", "", "")[0].starts_with("mixed://[::]:1/main takes native")
        );
        for listen in ["native://127.0.0.1:1", "native://[::1]:1", "native://localhost:1"] {
            assert_eq!(warnings(listen, "", ""), [""; 0], "{listen}");
        }
        assert_eq!(warnings("native://0.0.0.0:1", "", "native.open=always"), [""; 0]);
        for open in ["native.open=never", "native.open=always"] {
            assert_eq!(warnings("native://0.0.0.0:1", &list, open), [""; 0], "{open}");
        }
        // The list keeps nobody out who comes from this machine, and a proxy there is all of them.
        for listen in ["native://0.0.0.0:1", "native://127.0.0.1:1"] {
            for open in ["", "native.open=loopback"] {
                let said = warnings(listen, &list, open);
                assert!(said.len() == 1 && said[0].contains("behind a proxy"), "{said:?}");
            }
        }
        assert_eq!(warnings("line://0.0.0.0:1", &list, ""), [""; 0]);
    }

    #[test]
    fn a_wrong_file_of_keys_fails_whatever_is_listened_on() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("keys");
        fs::write(&list, "\n  x\n").unwrap();
        let list = format!("native.authorized_keys={}", list.display());
        let mut loaded = load(&[&list, "server.listen=line://h:1"]);
        for failure in [
            prepare(&mut loaded).map(|_| ()).unwrap_err(),
            check(&loaded.settings.native).unwrap_err(),
        ] {
            assert_eq!(failure.code(), 3);
            let said = failure.to_string();
            assert!(said.starts_with("native.authorized_keys: ") && said.contains("keys:2:3: "));
        }
    }
}
