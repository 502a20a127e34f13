//! From flags to a client that is connected: its key, and the relay that it expects.

use std::path::{Path, PathBuf};

use wardline_client::keys::{self, KeyFileError};
use wardline_client::state::{CLIENT_KEY, KNOWN_HOSTS, state_directory};
use wardline_client::{Client, Policy, Server, SigningKey};
use wardline_host::clock;

use super::args::Common;
use super::words;
use crate::exit::Failure;

/// Connects as the flags say.
pub(crate) async fn connect(common: &Common) -> Result<Client, Failure> {
    connect_with(common, key(common)?, Policy::OPEN).await
}

/// Connects; what is said is signed, or what is not signed is kept back.
pub(crate) async fn connect_trusting(
    common: &Common,
    sign: bool,
    signed_only: bool,
) -> Result<Client, Failure> {
    let policy = if sign { Policy::OPEN.sign() } else { Policy::OPEN };
    let policy = if signed_only { policy.demand() } else { policy };
    connect_with(common, key(common)?, policy).await
}

/// Connects with another key than that of the flags.
pub(crate) async fn connect_as(common: &Common, key: SigningKey) -> Result<Client, Failure> {
    connect_with(common, key, Policy::OPEN).await
}

async fn connect_with(common: &Common, key: SigningKey, policy: Policy) -> Result<Client, Failure> {
    let server = server(common)?;
    let identity = key.identity();
    let url = common.server.to_string();
    let known = match &server {
        Server::KnownHosts(path) => Some(path.clone()),
        Server::Pin(_) | Server::FirstUse => None,
    };
    let is_new = known.as_deref().is_some_and(|path| !knows(path, &common.server.address()));
    let connected = Client::builder(&url).key(key).server(server).envelopes(policy).connect().await;
    let client = connected
        .map_err(|error| words::not_connected(&error, &url, &identity, known.as_deref()))?;
    if let (true, Some(path)) = (is_new, known) {
        let server = client.server();
        eprintln!("wardline: met {url} for the first time: it is ed25519:{server}");
        eprintln!("wardline: noted in {}: from now on no other is taken for it", path.display());
    }
    Ok(client)
}

/// The key of the flags, or the one in the state directory; made there where there is none.
pub(crate) fn key(common: &Common) -> Result<SigningKey, Failure> {
    let settings = |error: KeyFileError| Failure::Settings(error.to_string());
    if let Some(path) = &common.key {
        return keys::load(path).map_err(settings);
    }
    let path = in_state(CLIENT_KEY, "--key FILE")?;
    let (key, made) = keys::load_or_generate(&path).map_err(settings)?;
    if made {
        let identity = key.identity();
        eprintln!("wardline: made your key, {}: you are ed25519:{identity}", path.display());
    }
    Ok(key)
}

/// A key that lives as long as this process.
pub(crate) fn passing_key() -> Result<SigningKey, Failure> {
    clock::seed()
        .map(|seed| SigningKey::from_seed(&seed))
        .map_err(|error| Failure::Runtime(error.to_string()))
}

/// A file of the state directory; `flag` is what names it otherwise.
pub(crate) fn in_state(file: &str, flag: &str) -> Result<PathBuf, Failure> {
    state_directory().map(|state| state.join(file)).ok_or_else(|| {
        Failure::Settings(format!("there is no home to keep {file} in: name one with {flag}"))
    })
}

fn server(common: &Common) -> Result<Server, Failure> {
    match (&common.pin, &common.known_hosts) {
        (Some(pin), _) => Ok(Server::Pin(*pin)),
        (None, Some(path)) => Ok(Server::KnownHosts(path.clone())),
        (None, None) => {
            in_state(KNOWN_HOSTS, "--known-hosts FILE, or --pin HEX").map(Server::KnownHosts)
        }
    }
}

/// Whether a file of known relays has this one; of a file that is wrong the client says so.
fn knows(path: &Path, address: &str) -> bool {
    wardline_client::KnownHosts::new(path).find(address).is_ok_and(|found| found.is_some())
}
