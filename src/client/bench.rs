//! `wardline bench`: what a relay carries through this client. The client's own work is in the
//! figures: they are a floor for the relay's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use wardline_client::{Client, Event, From, Subscription};

use super::args::BenchArgs;
use super::ask::shown;
use super::connect::{connect, connect_as, passing_key};
use super::show::{Out, Shape};
use super::{leave, run, words};
use crate::exit::Failure;

/// How long the end waits for messages while none come.
const SILENCE: Duration = Duration::from_secs(2);

/// Publishes and reads for a while, and prints what came through.
pub(crate) fn bench(args: &BenchArgs) -> Result<(), Failure> {
    run(work(args))
}

/// What all connections count.
#[derive(Debug)]
struct Counts {
    started: Instant,
    published: AtomicU64,
    delivered: AtomicU64,
    latencies: Histogram,
}

async fn work(args: &BenchArgs) -> Result<(), Failure> {
    let counts = Arc::new(Counts {
        started: Instant::now(),
        published: AtomicU64::new(0),
        delivered: AtomicU64::new(0),
        latencies: Histogram::new(),
    });
    let (mut readers, mut publishers) = (Vec::new(), Vec::new());
    let topic = match &args.topic {
        Some(topic) => topic.clone(),
        // Nobody else's.
        None => format!("bench/{}", &passing_key()?.identity().to_string()[..16]),
    };
    let mut reading = JoinSet::new();
    for _ in 0..args.readers {
        let client = connected(args).await?;
        let messages = client.subscribe(&topic, From::Now, true).await.map_err(|error| {
            words::failed(&error, &format!("read {topic}"), "subscribe", &client.identity())
        })?;
        reading.spawn(read(messages, counts.clone()));
        readers.push(client);
    }
    for _ in 0..args.publishers {
        publishers.push(connected(args).await?);
    }
    let began = Instant::now();
    let ends = began + Duration::from_secs(u64::from(args.seconds));
    let mut publishing = JoinSet::new();
    for client in &publishers {
        let (client, topic, counts) = (client.clone(), topic.clone(), counts.clone());
        let (size, rate) = (args.size as usize, args.rate);
        publishing.spawn(async move { publish(&client, &topic, size, rate, ends, &counts).await });
    }
    progress(&counts, ends).await;
    while let Some(done) = publishing.join_next().await {
        done.map_err(|error| Failure::Runtime(error.to_string()))??;
    }
    let took = began.elapsed();
    let wanted = counts.published.load(Relaxed).saturating_mul(u64::from(args.readers));
    settle(&counts, wanted).await;
    tell(args, &counts, took, wanted)?;
    reading.abort_all();
    for client in publishers.into_iter().chain(readers) {
        leave(client).await;
    }
    Ok(())
}

/// A connection more: of the key that was named, else of one of its own.
async fn connected(args: &BenchArgs) -> Result<Client, Failure> {
    match args.common.key {
        Some(_) => connect(&args.common).await,
        None => connect_as(&args.common, passing_key()?).await,
    }
}

/// Publishes until then, as fast as the relay takes it or so often a second; returns when it has
/// taken all.
async fn publish(
    client: &Client,
    topic: &str,
    size: usize,
    rate: Option<u32>,
    ends: Instant,
    counts: &Counts,
) -> Result<(), Failure> {
    let who = client.identity();
    let failed = |error| words::failed(&error, &format!("publish to {topic}"), "publish", &who);
    let mut ticks = rate.map(|rate| {
        let mut ticks = interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        ticks
    });
    while Instant::now() < ends {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let mut payload = vec![b'.'; size];
        payload[..8].copy_from_slice(&counts.now_ns().to_le_bytes());
        client.publish(topic, payload).await.map_err(failed)?;
        counts.published.fetch_add(1, Relaxed);
        // The task that sends is another one, in the same thread.
        tokio::task::yield_now().await;
    }
    client.ping().await.map(|_| ()).map_err(failed)
}

async fn read(mut messages: Subscription, counts: Arc<Counts>) {
    while let Some(event) = messages.recv().await {
        if let Event::Message(message) = event
            && let Some(stamp) = message.payload.first_chunk::<8>()
        {
            let sent = u64::from_le_bytes(*stamp);
            counts.latencies.record(counts.now_ns().saturating_sub(sent));
            counts.delivered.fetch_add(1, Relaxed);
        }
    }
}

impl Counts {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A line a second, until then.
async fn progress(counts: &Counts, ends: Instant) {
    let (mut published, mut delivered) = (0, 0);
    for second in 1_u32.. {
        let next = Instant::now() + Duration::from_secs(1);
        sleep_until(next.min(ends)).await;
        let (now_published, now_delivered) =
            (counts.published.load(Relaxed), counts.delivered.load(Relaxed));
        let (sent, came) = (now_published - published, now_delivered - delivered);
        eprintln!("wardline: {second} s: {sent} published, {came} delivered in it");
        (published, delivered) = (now_published, now_delivered);
        if next >= ends {
            return;
        }
    }
}

/// Waits for what is under way, as long as something comes.
async fn settle(counts: &Counts, wanted: u64) {
    let mut last = (counts.delivered.load(Relaxed), Instant::now());
    while last.0 < wanted && last.1.elapsed() < SILENCE {
        sleep(Duration::from_millis(5)).await;
        let delivered = counts.delivered.load(Relaxed);
        if delivered > last.0 {
            last = (delivered, Instant::now());
        }
    }
}

fn tell(args: &BenchArgs, counts: &Counts, took: Duration, wanted: u64) -> Result<(), Failure> {
    let (published, delivered) = (counts.published.load(Relaxed), counts.delivered.load(Relaxed));
    let seconds = took.as_secs_f64();
    let per_second = |count: u64| (count as f64 / seconds).round() as u64;
    let missing = wanted.saturating_sub(delivered);
    let at = |percent| (delivered > 0).then(|| counts.latencies.at(percent));
    let (median, high, most) = (at(50.0), at(99.0), at(100.0));
    let out = Out::new(Shape::of(false, args.common.json));
    if out.shape() == Shape::Json {
        let micros = |ns: Option<u64>| ns.map(|ns| ns / 1_000);
        let _ = out.json(&json!({
            "publishers": args.publishers, "readers": args.readers, "size": args.size,
            "seconds": seconds, "published": published, "delivered": delivered,
            "missing": missing, "published_per_second": per_second(published),
            "delivered_per_second": per_second(delivered), "median_us": micros(median),
            "p99_us": micros(high), "max_us": micros(most),
        }))?;
        return Ok(());
    }
    let mut said = format!(
        "{published} messages of {} bytes published in {seconds:.1} s, {} in a second\n\
         {delivered} delivered, {} in a second; {missing} missing\n",
        args.size,
        per_second(published),
        per_second(delivered),
    );
    if let [Some(median), Some(high), Some(most)] = [median, high, most] {
        let [median, high, most] = [median, high, most].map(|ns| shown(Duration::from_nanos(ns)));
        said.push_str(&format!(
            "from publish to reader: median {median}, 99 % within {high}, most {most}\n"
        ));
    }
    let _ = out.words(&said)?;
    Ok(())
}

/// Bits of a value below its highest one that are kept: a figure is right to one part in 32.
const KEPT: u32 = 5;

/// How often each value came, in buckets that grow with the value.
struct Histogram(Vec<AtomicU64>);

impl std::fmt::Debug for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Histogram(..)")
    }
}

impl Histogram {
    fn new() -> Self {
        Self((0..(64 - KEPT + 1) << KEPT).map(|_| AtomicU64::new(0)).collect())
    }

    fn record(&self, value: u64) {
        if let Some(bucket) = self.0.get(bucket_of(value)) {
            bucket.fetch_add(1, Relaxed);
        }
    }

    /// The value that so many percent do not exceed, rounded up to its bucket's end; 0 of none.
    fn at(&self, percent: f64) -> u64 {
        let total: u64 = self.0.iter().map(|bucket| bucket.load(Relaxed)).sum();
        let wanted = ((total as f64 * percent / 100.0).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, bucket) in self.0.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= wanted {
                return end_of(index);
            }
        }
        0
    }
}

fn bucket_of(value: u64) -> usize {
    let bits = 64 - value.leading_zeros();
    let shift = bits.saturating_sub(KEPT + 1);
    let index = (u64::from(shift) << KEPT) + (value >> shift);
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// The largest value of a bucket.
fn end_of(index: usize) -> u64 {
    let (index, once) = (index as u64, 1_u64 << KEPT);
    if index < 2 * once {
        return index;
    }
    let shift = (index >> KEPT) - 1;
    let lead = (index & (once - 1)) + once;
    ((u128::from(lead) + 1) << shift).saturating_sub(1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_bucket_that_ends_just_above_it() {
        let values = (0..200).chain((0..64).flat_map(|bit| {
            let power = 1_u64 << bit;
            [power - 1, power, power + power / 3, power + (power - 1)]
        }));
        for value in values {
            let end = end_of(bucket_of(value));
            assert!(end >= value && end - value <= value / 32, "{value}: {end}");
            assert!(bucket_of(end) == bucket_of(value), "{value}");
        }
        assert!(bucket_of(u64::MAX) < Histogram::new().0.len());
    }

    #[test]
    fn percentiles() {
        let histogram = Histogram::new();
        assert_eq!(histogram.at(50.0), 0);
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!(histogram.at(50.0), 50);
        assert!((99..=101).contains(&histogram.at(99.0)));
        assert!((100..=103).contains(&histogram.at(100.0)));
    }
}
