//! What a native client asks of the relay, and waits to be answered.

use wardline_core::native::{ClientControl, Code, ServerControl, Start};

use super::{NativeClient, Said};

/// Where a topic is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) topic: u32,
    pub(crate) epoch: u64,
    pub(crate) next: u64,
    pub(crate) oldest: u64,
}

impl NativeClient {
    /// Reads a topic, its own messages too.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, name: &str, from: Start) -> Place {
        self.try_subscribe(name, from).unwrap_or_else(|code| panic!("{name}: {code:?}"))
    }

    pub(crate) fn try_subscribe(&mut self, name: &str, from: Start) -> Result<Place, Code> {
        self.ask_to_read(name, from, false)
    }

    /// Reads a topic, and is told who comes and goes.
    #[cfg(all(unix, not(wardline_portable)))]
    pub(crate) fn watch(&mut self, name: &str) -> Result<Place, Code> {
        self.ask_to_read(name, Start::Now, true)
    }

    fn ask_to_read(&mut self, name: &str, from: Start, presence: bool) -> Result<Place, Code> {
        let (number, echo) = (self.next_ask(), true);
        self.ask(&ClientControl::Subscribe { ask: number, name, from, echo, presence });
        let place = self.wait_for("Subscribed", |said| match said {
            Said::Control(ServerControl::Subscribed { ask, topic, epoch, next, oldest })
                if *ask == number =>
            {
                Some(Ok(Place { topic: *topic, epoch: *epoch, next: *next, oldest: *oldest }))
            }
            said => refused(said, number).map(Err),
        })?;
        self.topics.insert(name.to_owned(), place.topic);
        Ok(place)
    }

    /// The next that it is told of who comes and goes.
    #[cfg(all(unix, not(wardline_portable)))]
    #[track_caller]
    pub(crate) fn presence(&mut self) -> ServerControl<'static> {
        self.wait_for("Joined or Left", |said| match said {
            Said::Control(ServerControl::Joined { topic, handle }) => {
                Some(ServerControl::Joined { topic: *topic, handle: *handle })
            }
            Said::Control(ServerControl::Left { topic, handle }) => {
                Some(ServerControl::Left { topic: *topic, handle: *handle })
            }
            _ => None,
        })
    }

    /// Has a topic to publish to, or to ask who reads it.
    pub(crate) fn open(&mut self, name: &str) -> Result<u32, Code> {
        let number = self.next_ask();
        self.ask(&ClientControl::Open { ask: number, name });
        let topic = self.wait_for("Opened", |said| match said {
            Said::Control(ServerControl::Opened { ask, topic }) if *ask == number => {
                Some(Ok(*topic))
            }
            said => refused(said, number).map(Err),
        })?;
        self.topics.insert(name.to_owned(), topic);
        Ok(topic)
    }

    /// Whose a handle is.
    pub(crate) fn identify(&mut self, handle: u64) -> Result<[u8; 32], Code> {
        let number = self.next_ask();
        self.ask(&ClientControl::Identify { ask: number, handle });
        self.wait_for("Identity", |said| match said {
            Said::Control(ServerControl::Identity { ask, identity, .. }) if *ask == number => {
                Some(Ok(*identity))
            }
            said => refused(said, number).map(Err),
        })
    }

    /// Who reads a topic of that number: handles.
    #[cfg(all(unix, not(wardline_portable)))]
    pub(crate) fn who(&mut self, topic: u32) -> Result<Vec<u64>, Code> {
        let (mut found, mut after) = (Vec::new(), 0);
        loop {
            let number = self.next_ask();
            self.ask(&ClientControl::Who { ask: number, topic, after });
            after = loop {
                let told = self.wait_for("Identity or Done", |said| match said {
                    Said::Control(ServerControl::Identity { ask, handle, .. })
                        if *ask == number =>
                    {
                        Some(Ok(Err(*handle)))
                    }
                    Said::Control(ServerControl::Done { ask, next }) if *ask == number => {
                        Some(Ok(Ok(*next)))
                    }
                    said => refused(said, number).map(Err),
                })?;
                match told {
                    Ok(next) => break next,
                    Err(handle) => found.push(handle),
                }
            };
            if after == 0 {
                return Ok(found);
            }
        }
    }

    fn next_ask(&mut self) -> u32 {
        self.asks += 1;
        self.asks
    }

    fn ask(&mut self, value: &ClientControl<'_>) {
        let (header, body) = self.session.control(value).expect("it is ready");
        self.write(&[&header[..], body.as_bytes()].concat());
    }
}

fn refused(said: &Said, number: u32) -> Option<Code> {
    match said {
        Said::Control(ServerControl::Refused { ask, code, .. }) if *ask == number => {
            Code::from_wire(*code)
        }
        _ => None,
    }
}
