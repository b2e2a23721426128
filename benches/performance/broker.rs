//! The broker in memory, librdkafka's own, in a process of its own: told to create topics over its stdin, and gone at the
//! end of that.

use std::io::{BufRead, BufReader, Write, stdin, stdout};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rdkafka::mocking::MockCluster;

use crate::this_program;

/// Runs it until stdin ends. It prints where it listens, and then a line for each topic that was made.
pub fn run() {
    let cluster = MockCluster::new(1).unwrap();
    println!("{}", cluster.bootstrap_servers());
    for line in stdin().lock().lines() {
        let line = line.unwrap();
        let (topic, partitions) = line.split_once(' ').unwrap();
        cluster.create_topic(topic, partitions.parse().unwrap(), 1).unwrap();
        println!("{topic}");
        stdout().flush().unwrap();
    }
}

/// A running one.
pub struct MockBroker {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    pub servers: String,
}

impl MockBroker {
    pub fn start() -> Self {
        let mut process = Command::new(this_program())
            .arg("broker")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut broker = Self { process, orders, answers, servers: String::new() };
        broker.servers = broker.answer();
        broker
    }

    pub fn create_topic(&mut self, topic: &str, partitions: i32) {
        writeln!(self.orders.as_mut().unwrap(), "{topic} {partitions}").unwrap();
        assert_eq!(self.answer(), topic);
    }

    pub fn process(&self) -> u32 {
        self.process.id()
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for MockBroker {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.process.wait();
    }
}
