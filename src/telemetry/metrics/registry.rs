//! The numbers that the process has one of.

use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Handles into the registry.
#[derive(Debug)]
pub(super) struct ProcessWide {
    registry: Registry,
    pub(super) in_flight: IntGauge,
    pub(super) panics: IntCounter,
    pub(super) reloads_done: IntCounter,
    pub(super) reloads_refused: IntCounter,
    pub(super) last_reload_success: IntGauge,
    pub(super) last_reload_at: IntGauge,
    pub(super) generation: IntGauge,
}

impl ProcessWide {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let reloads = counters(
            &registry,
            "vestibule_config_reloads_total",
            "Reloads of the configuration, by result.",
            "result",
        );
        let build = gauges(
            &registry,
            "vestibule_build_info",
            "The version that runs; always 1.",
            "version",
        );
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            in_flight: gauge(
                &registry,
                "vestibule_requests_in_flight",
                "Requests that have come in and not ended.",
            ),
            panics: counter(
                &registry,
                "vestibule_panics_total",
                "Tasks that ended in a panic.",
            ),
            reloads_done: reloads.with_label_values(&["done"]),
            reloads_refused: reloads.with_label_values(&["refused"]),
            last_reload_success: gauge(
                &registry,
                "vestibule_config_last_reload_success",
                "1 if the last attempt to load the configuration succeeded, 0 if the old one stayed in force.",
            ),
            last_reload_at: gauge(
                &registry,
                "vestibule_config_last_reload_timestamp_seconds",
                "When the configuration was last loaded or refused, in Unix time.",
            ),
            generation: gauge(
                &registry,
                "vestibule_config_generation",
                "The number of the configuration in force, from 1.",
            ),
            registry,
        }
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    registered(registry, IntGauge::new(name, help))
}

fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    registered(registry, IntCounter::new(name, help))
}

fn counters(registry: &Registry, name: &str, help: &str, label: &str) -> IntCounterVec {
    registered(
        registry,
        IntCounterVec::new(Opts::new(name, help), &[label]),
    )
}

fn gauges(registry: &Registry, name: &str, help: &str, label: &str) -> IntGaugeVec {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), &[label]))
}

fn registered<M: Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("names and labels are literals of this file, and valid");
    registry
        .register(Box::new(metric.clone()))
        .expect("names are literals of this file, and differ");
    metric
}
