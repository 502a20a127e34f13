//! Relays of other people: how one is found, set up so that it drops nothing, and started.
//!
//! Each is started as its own package would have it, but for what would end or change the
//! measurement: limits after which it drops or disconnects, and files that it would write.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::wire::Format;

/// Where Debian puts servers, which is not in everybody's path.
const ALSO_IN: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// A relay that others make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// nats-server.
    Nats,
    /// redis-server, its publish and subscribe.
    Redis,
    /// mosquitto, an MQTT broker.
    Mosquitto,
}

impl Peer {
    /// Its program.
    pub fn program_name(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::Redis => "redis-server",
            Self::Mosquitto => "mosquitto",
        }
    }

    /// How its messages look.
    pub fn format(self) -> Format {
        match self {
            Self::Nats => Format::Nats,
            Self::Redis => Format::Resp,
            Self::Mosquitto => Format::Mqtt,
        }
    }

    /// The program on this machine.
    ///
    /// # Errors
    /// There is none; the error says how to get it.
    pub fn find(self) -> Result<PathBuf> {
        let name = self.program_name();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::env::split_paths(&path).chain(ALSO_IN.map(PathBuf::from));
        match dirs.map(|dir| dir.join(name)).find(|program| program.is_file()) {
            Some(program) => Ok(program),
            // The Debian packages have the programs' names.
            None => bail!("no `{name}` on this machine; Debian has it: apt-get install {name}"),
        }
    }

    /// Writes its settings into `dir`, and gives the command that starts it there at this port.
    pub fn command(self, program: &Path, dir: &Path, port: u16) -> Result<Command> {
        let settings = dir.join("settings");
        let text = self.settings(port, &dir.display().to_string());
        fs::write(&settings, text)
            .with_context(|| format!("cannot write {}", settings.display()))?;
        let mut command = Command::new(program);
        match self {
            Self::Nats | Self::Mosquitto => command.arg("-c").arg(settings),
            Self::Redis => command.arg(settings),
        };
        command.current_dir(dir);
        Ok(command)
    }

    fn settings(self, port: u16, dir: &str) -> String {
        match self {
            // The first two are what a slow reader is cut by; the third would cut the silent.
            Self::Nats => format!(
                "listen: \"127.0.0.1:{port}\"\n\
                 max_pending: 4GB\n\
                 write_deadline: \"120s\"\n\
                 ping_interval: \"1h\"\n\
                 max_connections: 200000\n"
            ),
            Self::Redis => format!(
                "bind 127.0.0.1\n\
                 port {port}\n\
                 dir {dir}\n\
                 daemonize no\n\
                 save \"\"\n\
                 appendonly no\n\
                 maxclients 100000\n\
                 tcp-backlog 4096\n\
                 tcp-keepalive 0\n\
                 timeout 0\n\
                 client-output-buffer-limit normal 0 0 0\n\
                 client-output-buffer-limit pubsub 0 0 0\n"
            ),
            // `user` names who it becomes when root starts it, which it otherwise looks up.
            Self::Mosquitto => format!(
                "listener {port} 127.0.0.1\n\
                 allow_anonymous true\n\
                 persistence false\n\
                 set_tcp_nodelay true\n\
                 max_queued_messages 0\n\
                 max_queued_bytes 0\n\
                 max_inflight_messages 0\n\
                 sys_interval 0\n\
                 log_type error\n\
                 user root\n"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_one_is_said_with_where_to_get_it() {
        for peer in [Peer::Nats, Peer::Redis, Peer::Mosquitto] {
            if let Err(error) = peer.find() {
                assert!(error.to_string().contains("apt-get install"), "{error}");
            }
        }
    }

    #[test]
    fn each_listens_on_loopback_alone() {
        for peer in [Peer::Nats, Peer::Redis, Peer::Mosquitto] {
            let settings = peer.settings(4711, "/tmp/x");
            assert!(settings.contains("127.0.0.1") && settings.contains("4711"), "{settings}");
            assert!(!settings.contains("0.0.0.0"));
        }
    }
}
