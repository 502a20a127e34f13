//! `wardline reply`: a command that answers requests. It is run for each, reads the request from
//! its standard input, and what it writes is the answer.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use wardline_client::{Client, Identity, Peer, Request};

use super::args::ReplyArgs;
use super::connect::connect_trusting;
use super::reports::Listening;
use super::show::{Out, Shape, handle};
use super::{Ending, First, first, leave, run, words};
use crate::exit::Failure;

/// Requests that run or wait; more are not answered.
const REQUESTS_MAX: usize = 256;

/// The longest answer.
const ANSWER_BYTES_MAX: u64 = 8 << 20;

/// Answers requests until it is told to end.
pub(crate) fn reply(args: &ReplyArgs) -> Result<(), Failure> {
    run(work(args))
}

async fn work(args: &ReplyArgs) -> Result<(), Failure> {
    let client = connect_trusting(&args.common, args.sign, args.signed_only).await?;
    let _listening = Listening::to(&client);
    let mut ending = Ending::catch();
    let answered = first(answer_all(args, &client), ending.asked()).await;
    match answered {
        First::A(done) => {
            // The last answers are to arrive.
            let closed = client.close().await;
            done?;
            closed.map_err(|error| Failure::Runtime(error.to_string()))
        }
        First::B(()) => {
            leave(client).await;
            Ok(())
        }
    }
}

async fn answer_all(args: &ReplyArgs, client: &Client) -> Result<(), Failure> {
    let who = client.identity();
    let requests = client.requests().await;
    let mut requests =
        requests.map_err(|error| words::failed(&error, "take requests", "request", &who))?;
    let own = handle(client.handle());
    eprintln!("wardline: answering as ed25519:{who}, handle {own}");
    let program = Arc::new(Program {
        argv: args.command.clone(),
        timeout: args.timeout,
        jobs: Semaphore::new(usize::from(args.jobs)),
        client: client.clone(),
        json: args.common.json,
    });
    let mut running = JoinSet::new();
    let mut left = args.count;
    while left != Some(0) {
        let Some(request) = requests.recv().await else {
            let why = client.ended().map(|ended| ended.to_string());
            return Err(Failure::Runtime(why.unwrap_or_else(|| "the client is over".to_owned())));
        };
        while running.try_join_next().is_some() {}
        if running.len() >= REQUESTS_MAX {
            let sender = handle(request.sender());
            eprintln!("wardline: {sender}: not answered: {REQUESTS_MAX} requests run or wait");
            continue;
        }
        left = left.map(|left| left - 1);
        let program = program.clone();
        let came = Instant::now();
        running.spawn(async move { program.answer(request, came).await });
    }
    while running.join_next().await.is_some() {}
    Ok(())
}

struct Program {
    argv: Vec<std::ffi::OsString>,
    timeout: Duration,
    jobs: Semaphore,
    client: Client,
    json: bool,
}

/// What came of a request.
struct Answered {
    identity: Option<String>,
    bytes: usize,
}

impl Program {
    /// Answers one request, and says what came of it where something went wrong, or all is shown.
    async fn answer(&self, request: Request, came: Instant) {
        let (sender, asked) = (handle(request.sender()), request.payload().len());
        let patience = request.patience().unwrap_or(self.timeout).min(self.timeout);
        let answered = match timeout_at(came + patience, self.run(&request)).await {
            Ok(Ok((identity, answer))) => {
                let bytes = answer.len();
                self.send(request, answer).await.map(|()| Answered { identity, bytes })
            }
            Ok(Err(what)) => Err(what),
            Err(_) => Err(format!("the command was not done within {patience:?}")),
        };
        if let Err(what) = &answered {
            eprintln!("wardline: {sender}: not answered: {what}");
        }
        if self.json {
            let (answered, wrong) = match answered {
                Ok(answered) => (Some(answered), None),
                Err(what) => (None, Some(what)),
            };
            // Who no longer reads that is no reason to answer nobody.
            let _ = Out::new(Shape::Json).json(&json!({
                "sender": sender,
                "identity": answered.as_ref().and_then(|it| it.identity.clone()),
                "bytes": asked,
                "answer_bytes": answered.as_ref().map(|it| it.bytes),
                "ms": u64::try_from(came.elapsed().as_millis()).unwrap_or(u64::MAX),
                "error": wrong,
            }));
        }
    }

    /// Runs the command; gives who asked, and what it wrote.
    async fn run(&self, request: &Request) -> Result<(Option<String>, Vec<u8>), String> {
        let permit = self.jobs.acquire().await.map_err(|error| error.to_string())?;
        // A command may well decide by who asks: without that it is not run.
        let (identity, device) = match request.signed() {
            Some(signed) => (Some(signed.sender), signed.device),
            None => self.asker(request).await?,
        };
        let signed = if request.signed().is_some() { "1" } else { "" };
        let identity = identity.as_ref().map(ToString::to_string);
        let mut command = Command::new(&self.argv[0]);
        command
            .args(&self.argv[1..])
            .env("WARDLINE_SENDER", handle(request.sender()))
            .env("WARDLINE_IDENTITY", identity.as_deref().unwrap_or_default())
            .env("WARDLINE_DEVICE", device.to_string())
            .env("WARDLINE_SIGNED", signed)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let answer = talk(&mut command, request.payload()).await;
        drop(permit);
        let answer = answer.map_err(|error| {
            let program = self.argv[0].to_string_lossy();
            format!("cannot run {program}: {error}")
        })?;
        match answer {
            (status, _) if !status.success() => Err(format!("the command ended with {status}")),
            (_, answer) if answer.len() as u64 > ANSWER_BYTES_MAX => {
                Err(format!("the command wrote more than {ANSWER_BYTES_MAX} bytes"))
            }
            (_, answer) => Ok((identity, answer)),
        }
    }

    /// Who asks, by the relay's word.
    async fn asker(&self, request: &Request) -> Result<(Option<Identity>, u32), String> {
        let peer = self.client.identify(request.sender()).await;
        let peer = peer.map_err(|error| format!("cannot ask who that is: {error}"))?;
        match peer {
            Some(Peer { identity, device, .. }) => Ok((identity, device)),
            None => Err("who asked is gone".to_owned()),
        }
    }

    async fn send(&self, request: Request, answer: Vec<u8>) -> Result<(), String> {
        let failed = |error: wardline_client::Error| error.to_string();
        if answer.len() <= self.client.max_payload() {
            return request.reply(answer).await.map_err(failed);
        }
        let mut pieces = request.stream();
        pieces.send(answer).await.map_err(failed)?;
        pieces.end().await.map_err(failed)
    }
}

/// Gives a command its input, and takes what it writes until it ends. More than the longest answer
/// is not taken.
async fn talk(command: &mut Command, input: &[u8]) -> std::io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = command.spawn()?;
    let mut answer = Vec::new();
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let give = async {
        if let Some(mut stdin) = stdin {
            // A command need not read what it is asked.
            let _ = stdin.write_all(input).await;
        }
        // Dropped: that was all.
        std::future::pending::<()>().await;
    };
    let take = async {
        match stdout {
            Some(stdout) => stdout.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut answer).await,
            None => Ok(0),
        }
    };
    if let First::A(read) = first(take, give).await {
        read?;
    }
    if answer.len() as u64 > ANSWER_BYTES_MAX {
        child.start_kill()?;
    }
    Ok((child.wait().await?, answer))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, input: &[u8]) -> (ExitStatus, Vec<u8>) {
        let mut talked = None;
        run(async {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            talked = Some(talk(command.kill_on_drop(true), input).await.unwrap());
            Ok(())
        })
        .unwrap();
        talked.unwrap()
    }

    #[test]
    fn a_command_reads_the_request_and_writes_the_answer() {
        assert_eq!(shell("tr a-z A-Z", b"hello").1, b"HELLO");
        // More than a pipe holds, both ways at once.
        let much = vec![b'x'; 1 << 20];
        assert_eq!(shell("cat", &much).1, much);
        assert_eq!(shell("echo done", &much).1, b"done\n");
        let (status, _) = shell("exit 3", b"");
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn an_endless_answer_ends() {
        let (status, answer) = shell("exec yes", b"");
        assert!(!status.success());
        assert_eq!(answer.len() as u64, ANSWER_BYTES_MAX + 1);
    }
}
