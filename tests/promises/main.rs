//! The promises of the README, each with the test that proves it, on a real Kafka.
//!
//! One binary, so that it is linked once; `cargo test --test promises MODULE` runs the tests of one promise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "what tests are for")]
#![allow(
    clippy::pedantic,
    clippy::type_complexity,
    reason = "helps the product; tests are read more than called"
)]
#![allow(missing_docs, clippy::missing_panics_doc, reason = "names of helpers tell what they do")]

#[allow(dead_code, reason = "chaos uses the rest")]
#[path = "../support/mod.rs"]
mod support;

mod a_commit_without_an_answer_repeats_nothing;
mod a_refusal_can_be_explained;
mod a_rolling_restart_refuses_nothing;
mod a_silence_loses_nothing;
mod a_transaction_that_fails_stops_nobody;
mod an_answer_200_is_kept;
mod an_event_is_one_record;
mod an_outage_of_kafka_loses_nothing;
mod authentic_bytes_are_never_dropped;
mod check_finds_what_is_wrong;
mod clocks_may_be_wrong;
mod dead_letters_come_back;
mod hostile_deliveries;
mod hostile_http;
mod killed_at_random_moments;
mod nothing_unauthenticated_leaves_a_trace;
mod records_are_as_described;
mod replays_are_one_record;
mod requests_are_backfilled;
mod secrets_change_while_it_runs;
mod sources_are_apart;
mod strangers_shut_nobody_out;
mod supervisors_are_told;
mod the_dashboard_has_data;
mod the_judge_finds_every_fault;
mod the_ledger_says_where_to_go_on;
mod the_listener_speaks_tls;
mod the_process_ends_as_documented;
mod the_spool_keeps_what_kafka_does_not;
mod the_spools_way_is_steady;
mod the_status_page_is_readable;
mod the_tests_brokers_are_alone;
mod topics_are_what_the_promises_need;
mod two_groups_publish_once;
mod what_a_spool_held_is_recovered;
mod what_is_spooled_outlives_the_power;
mod what_never_came_is_found;
mod what_others_do_to_our_topics;
mod what_waits_is_counted;
