//! HTTP/2 connections that begin as a profile says.
//!
//! What is deliberately not here: requests, and how many of them there may be.

use http2::{
    client::Builder,
    frame::{
        ExperimentalSettings, Priorities, PrioritiesBuilder, Priority, PseudoId, PseudoOrder, Setting, SettingId,
        SettingsOrder, StreamDependency, StreamId,
    },
};

use crate::profile::{HeadersPriority, Http2Profile, read::WINDOW_DEFAULT};

/// A builder of connections whose preface, priorities and pseudo-headers are those of `profile`: settings in their order
/// (RFC 9113 section 6.5), the connection's window, PRIORITY frames, the first stream.
///
/// Without a profile: no server push, 1 MiB of window for each stream and 32 MiB for the connection, so that
/// it takes 32 readers that have stopped to hold up the others on a connection.
pub fn http2_builder(profile: Option<&Http2Profile>) -> Builder {
    let mut builder = Builder::new();
    match profile {
        Some(profile) => apply(profile, &mut builder),
        None => {
            builder.enable_push(false).initial_window_size(1 << 20).initial_connection_window_size(32 << 20);
        }
    }
    builder
}

fn apply(profile: &Http2Profile, builder: &mut Builder) {
    let mut order = SettingsOrder::builder();
    let mut unknown = ExperimentalSettings::builder();
    for &(id, value) in &profile.settings {
        order = order.push(SettingId::from(id));
        match id {
            1 => builder.header_table_size(value),
            2 => builder.enable_push(value != 0),
            3 => builder.max_concurrent_streams(value),
            4 => builder.initial_window_size(value),
            5 => builder.max_frame_size(value),
            6 => builder.max_header_list_size(value),
            8 => builder.enable_connect_protocol(value != 0),
            9 => builder.no_rfc7540_priorities(value != 0),
            _ => {
                unknown = unknown.push(Setting::from_id(id, value));
                &mut *builder
            }
        };
    }
    builder.settings_order(order.build()).experimental_settings(unknown.build());
    if profile.window_update > 0 {
        builder.initial_connection_window_size(WINDOW_DEFAULT + profile.window_update);
    }
    builder.headers_pseudo_order(pseudo_order(&profile.pseudo_order));
    if let Some(priority) = profile.headers_priority {
        builder.headers_stream_dependency(dependency(priority));
    }
    if !profile.priority_frames.is_empty() {
        let frames = profile.priority_frames.iter();
        let frames = frames.map(|frame| Priority::new(StreamId::from(frame.stream), dependency(frame.priority)));
        builder.priorities(frames.fold(Priorities::builder(), PrioritiesBuilder::push).build());
    }
    builder.initial_stream_id(profile.first_stream);
}

fn pseudo_order(order: &str) -> PseudoOrder {
    let ids = order.split(',').filter_map(|letter| {
        Some(match letter {
            "m" => PseudoId::Method,
            "a" => PseudoId::Authority,
            "s" => PseudoId::Scheme,
            "p" => PseudoId::Path,
            _ => return None,
        })
    });
    PseudoOrder::builder().extend(ids).build()
}

/// RFC 7540 section 6.3: a weight of 1 to 256 is sent as one less.
fn dependency(priority: HeadersPriority) -> StreamDependency {
    let weight = u8::try_from(priority.weight.saturating_sub(1)).unwrap_or(u8::MAX);
    StreamDependency::new(StreamId::from(priority.depends_on), weight, priority.exclusive)
}
