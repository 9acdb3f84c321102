//! The messages of OTLP, filled with what there is to say.

use std::time::Duration;

use opentelemetry_proto::tonic::{
    collector::{metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
        ScopeMetrics, Sum, metric::Data, number_data_point,
    },
    resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};

use crate::{
    metrics::{Family, Kind, Point, Unit, Value, merged},
    rows::{Job, RecentRow},
};

/// Who tells.
pub(super) struct Resource {
    pub(super) attributes: Vec<(String, String)>,
    pub(super) version: String,
}

impl Resource {
    fn message(&self) -> resource::v1::Resource {
        let mut attributes: Vec<KeyValue> = self.attributes.iter().map(|(name, value)| text(name, value)).collect();
        attributes.push(text("service.version", &self.version));
        resource::v1::Resource { attributes, ..resource::v1::Resource::default() }
    }

    fn scope(&self) -> InstrumentationScope {
        InstrumentationScope {
            name: "keepwarm".into(),
            version: self.version.clone(),
            ..InstrumentationScope::default()
        }
    }
}

/// Every family, counted since `started`, as it was at `now`; both since 1970.
pub(super) fn metrics(
    families: &[Family],
    resource: &Resource,
    started: Duration,
    now: Duration,
) -> ExportMetricsServiceRequest {
    let times = (nanos(started), nanos(now));
    let scope = ScopeMetrics {
        scope: Some(resource.scope()),
        metrics: families.iter().map(|family| metric(family, times)).collect(),
        ..ScopeMetrics::default()
    };
    let metrics = ResourceMetrics {
        resource: Some(resource.message()),
        scope_metrics: vec![scope],
        ..ResourceMetrics::default()
    };
    ExportMetricsServiceRequest { resource_metrics: vec![metrics] }
}

fn metric(family: &Family, times: (u64, u64)) -> Metric {
    let cumulative = AggregationTemporality::Cumulative as i32;
    let numbers = || family.points.iter().filter_map(|point| number(point, times)).collect();
    let data = match family.kind {
        Kind::Counter => {
            Data::Sum(Sum { data_points: numbers(), aggregation_temporality: cumulative, is_monotonic: true })
        }
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: family.points.iter().filter_map(|point| durations(point, times)).collect(),
            aggregation_temporality: cumulative,
        }),
    };
    Metric {
        name: family.stem().to_owned(),
        description: family.help.to_owned(),
        // UCUM, as OpenTelemetry writes units; what turns this into Prometheus metrics adds `_seconds` and `_total` again.
        unit: match family.unit {
            Some(Unit::Seconds) => "s".to_owned(),
            Some(Unit::Bytes) => "By".to_owned(),
            None => String::new(),
        },
        data: Some(data),
        ..Metric::default()
    }
}

fn number(point: &Point, (started, now): (u64, u64)) -> Option<NumberDataPoint> {
    let value = match &point.value {
        Value::Whole(value) => number_data_point::Value::AsInt(i64::try_from(*value).unwrap_or(i64::MAX)),
        Value::Real(value) => number_data_point::Value::AsDouble(*value),
        Value::Times(..) => return None,
    };
    Some(NumberDataPoint {
        attributes: labels(point),
        start_time_unix_nano: started,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn durations(point: &Point, (started, now): (u64, u64)) -> Option<HistogramDataPoint> {
    let Value::Times(histogram, bounds) = &point.value else { return None };
    let buckets = merged(histogram, *bounds);
    Some(HistogramDataPoint {
        attributes: labels(point),
        start_time_unix_nano: started,
        time_unix_nano: now,
        count: histogram.count(),
        sum: Some(histogram.sum().as_secs_f64()),
        bucket_counts: buckets.iter().map(|(_, count)| *count).collect(),
        explicit_bounds: buckets.iter().filter_map(|(bound, _)| *bound).collect(),
        ..HistogramDataPoint::default()
    })
}

fn labels(point: &Point) -> Vec<KeyValue> {
    point.labels.iter().map(|(name, value)| text(name, value)).collect()
}

/// A span for each request, with its phases one after another below it.
pub(super) fn traces(requests: &[&RecentRow], resource: &Resource, now: Duration) -> ExportTraceServiceRequest {
    let spans = requests.iter().flat_map(|request| spans(request, now)).collect();
    let scope = ScopeSpans { scope: Some(resource.scope()), spans, ..ScopeSpans::default() };
    let spans =
        ResourceSpans { resource: Some(resource.message()), scope_spans: vec![scope], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }
}

fn spans(request: &RecentRow, now: Duration) -> Vec<Span> {
    let ended = now.saturating_sub(request.age);
    let started = ended.saturating_sub(request.total);
    let trace_id = rand::random::<[u8; 16]>().to_vec();
    let parent = rand::random::<[u8; 8]>().to_vec();
    let mut attributes = vec![
        text("keepwarm.job", request.job.as_str()),
        text("keepwarm.what", &request.what),
        text("keepwarm.why", &request.why),
        value("keepwarm.tries", any_value::Value::IntValue(request.tries.into())),
    ];
    attributes.extend(request.upstream.as_ref().map(|upstream| text("keepwarm.upstream", upstream)));
    attributes.extend(request.reused.map(|reused| value("keepwarm.reused", any_value::Value::BoolValue(reused))));
    let status = request.failed.then(|| Status { message: request.why.clone(), code: StatusCode::Error as i32 });
    let mut spans = vec![Span {
        trace_id: trace_id.clone(),
        span_id: parent.clone(),
        name: match request.job {
            Job::Dns => "query".to_owned(),
            Job::Https => "request".to_owned(),
            Job::Tunnel => "tunnel".to_owned(),
        },
        kind: SpanKind::Server as i32,
        start_time_unix_nano: nanos(started),
        end_time_unix_nano: nanos(ended),
        attributes,
        status,
        ..Span::default()
    }];
    let mut begun = started;
    for phase in &request.phases {
        let done = begun + phase.took;
        spans.push(Span {
            trace_id: trace_id.clone(),
            span_id: rand::random::<[u8; 8]>().to_vec(),
            parent_span_id: parent.clone(),
            name: phase.phase.clone(),
            kind: SpanKind::Internal as i32,
            start_time_unix_nano: nanos(begun),
            end_time_unix_nano: nanos(done),
            ..Span::default()
        });
        begun = done;
    }
    spans
}

fn text(name: &str, text: &str) -> KeyValue {
    value(name, any_value::Value::StringValue(text.to_owned()))
}

fn value(name: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn nanos(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
