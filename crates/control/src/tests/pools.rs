//! Pools are shown, and steered.

use super::*;
use crate::client::patch;

#[tokio::test]
async fn a_pool_is_shown_with_its_hosts_and_their_connections() {
    let fake = Fake::default();
    let lease = fake.pool.acquire(&"up").await.unwrap();
    let served = served_by(fake).await;
    let pools: Vec<PoolRow> = get(served.address, "/api/v1/pools").await.unwrap();
    assert_eq!((&*pools[0].name, pools[0].state, pools[0].gauges.in_use), ("lab", PoolState::Ok, 1));
    let detail: PoolDetail = get(served.address, "/api/v1/pools/lab").await.unwrap();
    let host = &detail.hosts[0];
    assert_eq!((&*host.name, host.connections[0].id, &*host.connections[0].state), ("up", lease.id(), "in_use"));
    assert_eq!(host.counters.acquires, 1);
    let error = get::<PoolDetail>(served.address, "/api/v1/pools/lob").await.unwrap_err();
    assert_eq!(error.to_string(), "there is no pool lob; there are lab");
}

#[tokio::test]
async fn limits_are_changed_whole_or_not_at_all() {
    let fake = Fake::default();
    let pool = fake.pool.clone();
    let served = served_by(fake).await;
    let shrink = LimitsPatch { max_per_host: Some(2), ..LimitsPatch::default() };
    let done: PoolDone = patch(served.address, "/api/v1/pools/lab", &shrink).await.unwrap();
    assert_eq!((done.pool.limits.max_per_host, pool.limits().max_per_host), (2, 2));
    let pools: Vec<PoolRow> = get(served.address, "/api/v1/pools").await.unwrap();
    assert_eq!(pools[0].limits.max_per_host, 2, "who asks afterwards sees it");
    let wrong = LimitsPatch { min_idle: Some(5), ..LimitsPatch::default() };
    let error = patch::<PoolDone>(served.address, "/api/v1/pools/lab", &wrong).await.unwrap_err();
    assert!(matches!(error, ClientError::Refused { status: 422, .. }), "{error}");
    assert_eq!(pool.limits().min_idle, 0);
    let nothing = LimitsPatch::default();
    let error = patch::<PoolDone>(served.address, "/api/v1/pools/lab", &nothing).await.unwrap_err();
    assert!(error.to_string().contains("no limit is named"), "{error}");
}

#[tokio::test]
async fn actions_are_of_a_host_or_of_all() {
    let fake = Fake::default();
    let pool = fake.pool.clone();
    drop((pool.acquire(&"a").await.unwrap(), pool.acquire(&"b").await.unwrap()));
    let served = served_by(fake).await;
    let act = async |action: &str, host: Option<&str>, connections| {
        let request = PoolRequest { host: host.map(str::to_owned), connections };
        let path = format!("/api/v1/pools/lab/{action}");
        post::<PoolDone>(served.address, &path, &request, Duration::from_secs(5)).await
    };
    assert_eq!(act("pause", Some("a"), None).await.unwrap().count, 1);
    assert!(pool.acquire(&"a").await.is_err());
    assert!(pool.acquire(&"b").await.is_ok());
    assert_eq!(act("resume", None, None).await.unwrap().count, 2);
    assert_eq!(act("flush", None, None).await.unwrap().pool.gauges.open, 0);
    let warmed = act("warm", Some("a"), Some(3)).await.unwrap();
    assert_eq!((warmed.count, warmed.pool.gauges.idle), (3, 3));
    let drained = act("drain", None, None).await.unwrap();
    assert_eq!((drained.pool.gauges.open, drained.pool.state), (0, PoolState::Paused));
    let error = act("pause", Some("c"), None).await.unwrap_err();
    assert!(error.to_string().contains("no host c"), "{error}");
    let error = act("warm", None, Some(11)).await.unwrap_err();
    assert!(error.to_string().contains("max_idle_per_host"), "{error}");
    let error = act("pause", None, Some(1)).await.unwrap_err();
    assert!(error.to_string().contains("warm alone"), "{error}");
}

#[tokio::test]
async fn a_reload_that_is_refused_says_why() {
    let served = served().await;
    let nothing = serde_json::json!({});
    let done: ReloadRow = post(served.address, "/api/v1/reload", &nothing, Duration::from_secs(5)).await.unwrap();
    assert_eq!((done.generation, &*done.kept), (2, &["dns.upstream.quad9".to_owned()][..]));
    let error =
        post::<ReloadRow>(served.address, "/api/v1/reload", &nothing, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.to_string(), "keepwarm.toml:3: unknown key");
}

#[tokio::test]
async fn the_level_of_the_log_is_changed_for_a_while() {
    let served = served().await;
    let louder = serde_json::json!({ "level": "debug" });
    let row: LogRow = patch(served.address, "/api/v1/log", &louder).await.unwrap();
    assert_eq!((&*row.level, row.reverts_in), ("debug", Some(Duration::from_secs(600))));
    let wrong = serde_json::json!({ "level": "loud" });
    let error = patch::<LogRow>(served.address, "/api/v1/log", &wrong).await.unwrap_err();
    assert_eq!(error.to_string(), "unknown level");
}

#[tokio::test]
async fn one_reload_runs_and_one_waits() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let fake = Fake { gate: Some(Arc::clone(&gate)), ..Fake::default() };
    let (_stop, stopped) = watch::channel(());
    let control = Control::new(Arc::new(fake), ([127, 0, 0, 1], 1).into(), ControlOptions::default(), stopped);
    let reload = || {
        let control = Arc::clone(&control);
        tokio::spawn(async move { control.reload().await })
    };
    let (first, second) = (reload(), reload());
    tokio::task::yield_now().await;
    let third = control.reload().await;
    assert!(matches!(&third, Err(Refusal::Failed(why)) if why.contains("under way already")), "{third:?}");
    gate.add_permits(2);
    assert_eq!(first.await.unwrap().unwrap().generation, 2);
    assert!(matches!(second.await.unwrap(), Err(Refusal::Invalid(_))), "the second was read too");
    gate.add_permits(1);
    assert!(matches!(control.reload().await, Err(Refusal::Invalid(_))), "there is a place again");
}
