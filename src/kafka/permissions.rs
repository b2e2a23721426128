//! What Kafka allows this client to do, as Kafka tells it: nothing is written to find out.
//!
//! With unsafe code: librdkafka can ask for authorised operations (KIP-430), and its Rust wrapper does not
//! offer it. Each pointer that is got here is owned by a guard that destroys it, or borrowed from the event that outlives it.

#![allow(unsafe_code, reason = "the wrapper has no call for it; see above")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr;

use rdkafka::ClientContext;
use rdkafka::bindings as librdkafka;
use rdkafka::client::Client;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::REQUEST_TIMEOUT;

/// What a client may be allowed to do with a topic or a group, by the number that Kafka's protocol has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Consume; of a group: be a member and commit.
    Read = 3,
    /// Produce.
    Write = 4,
    /// See it.
    Describe = 8,
    /// See its settings.
    DescribeConfigs = 10,
}

impl Operation {
    /// As `kafka-acls --operation` wants it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }
}

/// What is allowed, by protocol number; or why Kafka does not say.
pub type Allowed = Result<BTreeSet<u32>, RDKafkaErrorCode>;

/// Asks for topics. Blocks.
pub fn of_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
) -> Result<BTreeMap<String, Allowed>, KafkaError> {
    let names: Vec<CString> = names.iter().filter_map(|name| CString::new(*name).ok()).collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    // SAFETY: the pointers are to `names`, which outlives the call; the collection copies them.
    let collection = Owned {
        it: unsafe {
            librdkafka::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len())
        },
        destroy: librdkafka::rd_kafka_TopicCollection_destroy,
    };
    let event =
        ask(client, librdkafka::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS, |options, queue| {
            // SAFETY: all four are alive; the request copies what it needs.
            unsafe { librdkafka::rd_kafka_DescribeTopics(client.native_ptr(), collection.it, options, queue) }
        })?;
    let mut count = 0;
    // SAFETY: the event is the answer to this request, or the result is null; what it points to lives as long as the event.
    let topics = unsafe {
        let result = librdkafka::rd_kafka_event_DescribeTopics_result(event.it);
        if result.is_null() {
            return Err(KafkaError::Canceled);
        }
        let topics = librdkafka::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        slice(topics.cast_const(), count)
    };
    Ok(topics
        .iter()
        .map(|&topic| {
            // SAFETY: descriptions live as long as the event, and their names are C strings.
            unsafe {
                let name = CStr::from_ptr(librdkafka::rd_kafka_TopicDescription_name(topic));
                let error = librdkafka::rd_kafka_TopicDescription_error(topic);
                let allowed = allowed(error, |count| {
                    librdkafka::rd_kafka_TopicDescription_authorized_operations(topic, count)
                });
                (name.to_string_lossy().into_owned(), allowed)
            }
        })
        .collect())
}

/// Asks for a consumer group, whether it exists or not. Blocks.
pub fn of_group<C: ClientContext>(client: &Client<C>, name: &str) -> Result<Allowed, KafkaError> {
    let Ok(name) = CString::new(name) else { return Err(KafkaError::Canceled) };
    let mut pointer = name.as_ptr();
    let event = ask(
        client,
        librdkafka::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        |options, queue| {
            // SAFETY: all are alive; the request copies the one name.
            unsafe {
                librdkafka::rd_kafka_DescribeConsumerGroups(
                    client.native_ptr(),
                    &raw mut pointer,
                    1,
                    options,
                    queue,
                );
            }
        },
    )?;
    let mut count = 0;
    // SAFETY: as above.
    unsafe {
        let result = librdkafka::rd_kafka_event_DescribeConsumerGroups_result(event.it);
        if result.is_null() {
            return Err(KafkaError::Canceled);
        }
        let groups = librdkafka::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        let Some(&group) = slice(groups.cast_const(), count).first() else {
            return Err(KafkaError::Canceled);
        };
        let error = librdkafka::rd_kafka_ConsumerGroupDescription_error(group);
        Ok(allowed(error, |count| {
            librdkafka::rd_kafka_ConsumerGroupDescription_authorized_operations(group, count)
        }))
    }
}

/// Something of librdkafka's that has to be destroyed.
struct Owned<T> {
    it: *mut T,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: it came from librdkafka, is ours alone, and is not used any more.
        unsafe { (self.destroy)(self.it) }
    }
}

/// Sends a request that asks for authorised operations, and waits for its answer.
fn ask<C: ClientContext>(
    client: &Client<C>,
    kind: librdkafka::rd_kafka_admin_op_t,
    send: impl FnOnce(*const librdkafka::rd_kafka_AdminOptions_t, *mut librdkafka::rd_kafka_queue_t),
) -> Result<Owned<librdkafka::rd_kafka_event_t>, KafkaError> {
    let timeout_ms = c_int::try_from(REQUEST_TIMEOUT.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the client outlives all that is made of it here; options and queue are destroyed by their guards.
    let (options, queue) = unsafe {
        let handle = client.native_ptr();
        let options = librdkafka::rd_kafka_AdminOptions_new(handle, kind);
        let options = Owned { it: options, destroy: librdkafka::rd_kafka_AdminOptions_destroy };
        // Both can fail for nothing but a request of another kind.
        librdkafka::rd_kafka_AdminOptions_set_request_timeout(options.it, timeout_ms, ptr::null_mut(), 0);
        librdkafka::rd_kafka_AdminOptions_set_include_authorized_operations(options.it, 1);
        let queue = librdkafka::rd_kafka_queue_new(handle);
        (options, Owned { it: queue, destroy: librdkafka::rd_kafka_queue_destroy })
    };
    send(options.it, queue.it);
    // SAFETY: the queue is alive. The answer comes within the request's own time-out.
    let event = unsafe { librdkafka::rd_kafka_queue_poll(queue.it, timeout_ms.saturating_add(1000)) };
    if event.is_null() {
        return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
    }
    let event = Owned { it: event, destroy: librdkafka::rd_kafka_event_destroy };
    // SAFETY: the event is alive.
    let code = unsafe { librdkafka::rd_kafka_event_error(event.it) };
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(event),
        code => Err(KafkaError::AdminOp(code)),
    }
}

/// Copies what is allowed, unless there is an error in its place.
///
/// # Safety
///
/// The error, and what `operations` gives, must live.
unsafe fn allowed(
    error: *const librdkafka::rd_kafka_error_t,
    operations: impl FnOnce(*mut usize) -> *const librdkafka::rd_kafka_AclOperation_t,
) -> Allowed {
    // SAFETY: the caller's promise; a null error is none.
    let code = RDKafkaErrorCode::from(unsafe { librdkafka::rd_kafka_error_code(error) });
    if code != RDKafkaErrorCode::NoError {
        return Err(code);
    }
    let mut count = 0;
    // As numbers: a broker may know operations that this librdkafka has no name for.
    let operations = operations(&raw mut count).cast::<u32>();
    // SAFETY: the caller's promise.
    Ok(unsafe { slice(operations, count) }.iter().copied().collect())
}

/// # Safety
///
/// Where it is not null, `count` values must live there for as long as the slice is used.
unsafe fn slice<'a, T>(first: *const T, count: usize) -> &'a [T] {
    if first.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(first, count) }
}
