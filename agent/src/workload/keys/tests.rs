//! Keys: how the broker's answers are sorted, and a whole exchange with a broker on loopback.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use cella_attest::{Evidence, TdEvidence};
use cella_kbs_client::{GarbageKind, jwe, wire::Attestation};
use cella_policy::initdata;
use cella_record::RecordKey;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet};

use super::*;
use crate::{
    evidence::EvidenceSource,
    workload::testkit::{self, IMAGE_KID, MODEL_KID, PolicyText},
};

mod statement;

const BROKER: &str = "https://10.0.2.2:8443";

fn kid() -> KeyId {
    "kbs:///demo/model-kek/1".parse().unwrap()
}

fn origin() -> Origin {
    BROKER.parse().unwrap()
}

#[test]
fn keys_are_found_by_path_and_only_if_they_are_allowed() {
    let key = || Kek::from_slice(&[3; 32]).unwrap();
    let keyring: Keyring = [(kid(), key())].into_iter().collect();
    assert!(
        keyring
            .find(&[kid()], "kbs:///demo/model-kek/1")
            .unwrap()
            .same_as(&key())
    );
    assert!(keyring.find(&[kid()], "kbs://any.host:1/demo/model-kek/1").is_some());
    assert!(keyring.find(&[], "kbs:///demo/model-kek/1").is_none());
    assert!(
        keyring
            .find(&["kbs:///demo/model-kek/2".parse().unwrap()], "kbs:///demo/model-kek/2")
            .is_none()
    );
    assert!(keyring.find(&[kid()], "demo/model-kek/1").is_none());
    assert_eq!(format!("{keyring:?}"), "Keyring(1 keys)");
}

#[test]
fn the_brokers_answers_are_sorted_by_blame() {
    let resource = Step::Resource("demo/model-kek/1".parse().unwrap());
    let no = |step| KbsError::Refused {
        origin: origin(),
        step,
        kind: "PolicyDeny".into(),
        detail: "measurement not in the rule [id 3f2a]".into(),
    };
    let error = refused(BROKER, Some(&kid()), no(resource.clone()));
    assert!(matches!(&error, WorkloadError::KeyRefused { .. }));
    assert_eq!(
        error.to_string(),
        "key broker https://10.0.2.2:8443 refused key kbs:///demo/model-kek/1: measurement not in the rule [id 3f2a]"
    );
    let error = refused(BROKER, None, no(Step::Attest));
    assert!(matches!(&error, WorkloadError::EvidenceRefused { .. }));
    let missing = KbsError::NotFound {
        origin: origin(),
        path: "demo/model-kek/1".parse().unwrap(),
    };
    assert!(matches!(
        refused(BROKER, Some(&kid()), missing),
        WorkloadError::KeyMissing { .. }
    ));
    let garbage = KbsError::Garbage {
        origin: origin(),
        step: Step::Auth,
        what: GarbageKind::NoCookie,
    };
    assert!(matches!(refused(BROKER, None, garbage), WorkloadError::Broker { .. }));
    let evidence = KbsError::Evidence("no device".into());
    assert!(matches!(
        refused(BROKER, None, evidence),
        WorkloadError::Evidence { .. }
    ));
}

/// A platform that signs nothing and counts its reports: of SNP, or of TDX.
struct Platform {
    tee: Tee,
    quotes: AtomicUsize,
}

impl Platform {
    fn new(tee: Tee) -> Arc<Self> {
        Arc::new(Self {
            tee,
            quotes: AtomicUsize::new(0),
        })
    }

    fn quotes(&self) -> usize {
        self.quotes.load(Ordering::Relaxed)
    }
}

impl EvidenceSource for Platform {
    fn launched(&self) -> Result<Launched, EvidenceError> {
        panic!("the guest has been launched");
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<GuestEvidence, EvidenceError> {
        self.quotes.fetch_add(1, Ordering::Relaxed);
        Ok(match self.tee {
            Tee::Snp => {
                let mut report = vec![0; 1184];
                report[0] = 3; // version
                report[0x34] = 1; // algorithm
                report[0x50..0x90].copy_from_slice(report_data);
                report[0x90..0xc0].fill(7); // measurement
                report[0xc0..0xe0].fill(8); // HOST_DATA
                report[0x180..0x188].copy_from_slice(&[3, 0, 0, 0, 0, 0, 20, 209]);
                report[0x188..0x18b].copy_from_slice(&[0x19, 0x11, 1]);
                GuestEvidence::Snp(Evidence {
                    report,
                    chain: Vec::new(),
                })
            }
            Tee::Tdx => {
                let mut quote = vec![0; 632];
                quote[..6].copy_from_slice(&[4, 0, 2, 0, 0x81, 0]);
                quote[12..28].copy_from_slice(&0x939a_7233_f79c_4ca9_940a_0db3_957f_0607_u128.to_be_bytes());
                quote[48..51].copy_from_slice(&[5, 1, 2]);
                quote[184..232].fill(7); // MRTD
                quote[232..280].fill(8); // MRCONFIGID
                GuestEvidence::Tdx(TdEvidence {
                    quote,
                    event_log: Some(b"log".to_vec()),
                })
            }
        })
    }

    fn is_simulated(&self) -> bool {
        true
    }
}

/// A token that nobody has signed, issued at [`NOW`].
fn token() -> String {
    let claims = json!({"iat": NOW, "exp": NOW + 300, "jti": "0123456789abcdef"}).to_string();
    format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims))
}

const NOW: u64 = 1_900_000_000;

/// A broker that checks nothing: it notes requests, and answers resources with `resource` (status and content).
struct Broker {
    origin: Origin,
    seen: Arc<Mutex<Vec<String>>>,
    _task: JoinSet<()>,
}

impl Broker {
    async fn start(resource: fn(&str) -> (u16, Vec<u8>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, key) = (Arc::clone(&seen), Arc::new(Mutex::new(None)));
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (log, key) = (Arc::clone(&log), Arc::clone(&key));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (log, key) = (Arc::clone(&log), Arc::clone(&key));
                    async move {
                        let path = request.uri().path().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        log.lock().unwrap().push(path.clone());
                        let (status, text) = match path.as_str() {
                            "/kbs/v0/auth" => {
                                let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
                                *log.lock().unwrap().last_mut().unwrap() +=
                                    &format!(" {}", request["tee"].as_str().unwrap());
                                (200, json!({"nonce": "AAECAw==", "extra-params": ""}).to_string())
                            }
                            "/kbs/v0/attest" => {
                                let attestation: Attestation = serde_json::from_slice(&body).unwrap();
                                assert_eq!(attestation.init_data.unwrap().body, "the document");
                                let evidence = attestation.tee_evidence.primary_evidence;
                                let form = if evidence.get("quote").is_some() {
                                    " quote"
                                } else {
                                    " report"
                                };
                                *log.lock().unwrap().last_mut().unwrap() += form;
                                *key.lock().unwrap() = Some(attestation.runtime_data.tee_pubkey);
                                (200, json!({"token": token()}).to_string())
                            }
                            path => match resource(path.strip_prefix("/kbs/v0/resource/").unwrap()) {
                                (200, content) => {
                                    let key = key.lock().unwrap().clone().unwrap();
                                    let answer = serde_json::to_string(&jwe::encrypt(&key, &content).unwrap()).unwrap();
                                    *log.lock().unwrap().last_mut().unwrap() += " given";
                                    (200, answer)
                                }
                                (status, text) => (status, String::from_utf8(text).unwrap()),
                            },
                        };
                        let answer = Response::builder()
                            .status(status)
                            .header("set-cookie", "kbs-session-id=1");
                        Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(text))).unwrap())
                    }
                });
                http1::Builder::new()
                    .serve_connection(TokioIo::new(tcp), service)
                    .await
                    .ok();
            }
        });
        Self {
            origin,
            seen,
            _task: task,
        }
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    async fn fetch(&self, init: &BootInfo) -> (Result<Keyring, WorkloadError>, StageLog, Attested) {
        let (stages, attested) = (StageLog::new(), Attested::default());
        let http = Client::new(self.origin.clone(), None, ClientConfig::default()).unwrap();
        (fetch_over(http, init, &stages, &attested).await, stages, attested)
    }
}

/// A pod whose policy names the image's key twice and the model's once.
fn init(platform: &Arc<Platform>) -> BootInfo {
    let container = format!("image-keys = [\"{IMAGE_KID}\", \"{MODEL_KID}\"]");
    let model = Some((testkit::no_image(), 1, 1));
    BootInfo {
        initdata_text: "the document".to_owned(),
        digests: initdata::digests(b""),
        policy: PolicyText {
            port: 1,
            image: testkit::no_image(),
            container,
            model,
        }
        .parse(),
        tee: platform.tee,
        evidence: Arc::clone(platform) as Arc<dyn EvidenceSource>,
        time: TrustedTime::unknown(),
        record_key: RecordKey::generate().unwrap(),
    }
}

fn names(released: &[KeyRecord]) -> Vec<&str> {
    released.iter().map(|one| one.key.as_str()).collect()
}

fn denied(detail: &str) -> Vec<u8> {
    let kind = "https://github.com/confidential-containers/kbs/errors/PolicyDeny";
    json!({"type": kind, "detail": detail}).to_string().into_bytes()
}

#[tokio::test]
async fn one_attestation_gives_every_key_once() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|_| (200, vec![5; 32])).await;
    let (keyring, stages, attested) = broker.fetch(&init(&platform)).await;
    let keyring = keyring.unwrap();
    assert!(
        keyring
            .find(&[kid()], MODEL_KID)
            .unwrap()
            .same_as(&Kek::from_slice(&[5; 32]).unwrap())
    );
    let seen = broker.seen();
    assert_eq!(seen[..2], ["/kbs/v0/auth snp", "/kbs/v0/attest report"]);
    assert_eq!(
        seen[2..],
        [
            "/kbs/v0/resource/demo/image-kek/1 given",
            "/kbs/v0/resource/demo/model-kek/1 given"
        ]
    );
    assert_eq!(platform.quotes(), 1);
    let stages: Vec<_> = stages
        .snapshot()
        .into_iter()
        .map(|stage| (stage.name.as_str(), stage.failure))
        .collect();
    assert_eq!(stages, [("attest", None), ("keys", None)]);
    let summary = attested.summary().unwrap();
    assert_eq!((summary.tee, summary.simulated), (Tee::Snp, true));
    assert_eq!((summary.measurement, summary.host_data), (vec![7; 48], vec![8; 32]));
    assert_eq!(summary.tcb, "bootloader=3 tee=0 snp=20 microcode=209");
    assert_eq!(names(&summary.keys), [IMAGE_KID, MODEL_KID]);
}

#[tokio::test]
async fn one_key_refused_is_no_keys() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|path| match path {
        "demo/image-kek/1" => (200, vec![5; 32]),
        _ => (401, denied("initdata digest mismatch [id 7]")),
    });
    let broker = broker.await;
    let (keyring, stages, attested) = broker.fetch(&init(&platform)).await;
    let error = keyring.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "key broker {} refused key {MODEL_KID}: initdata digest mismatch [id 7]",
            broker.origin
        )
    );
    assert_eq!(
        stages.snapshot()[1].failure.as_deref(),
        Some(error.to_string().as_str())
    );
    assert_eq!(names(&attested.summary().unwrap().keys), [IMAGE_KID]);
}

#[tokio::test]
async fn a_key_of_another_length_is_refused() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|_| (200, vec![5; 31])).await;
    let (keyring, ..) = broker.fetch(&init(&platform)).await;
    assert!(
        matches!(keyring, Err(WorkloadError::KeyLength { found: 31, .. })),
        "{keyring:?}"
    );
}

#[tokio::test]
async fn a_tdx_guest_says_so_and_gives_a_quote() {
    let platform = Platform::new(Tee::Tdx);
    let broker = Broker::start(|_| (200, vec![5; 32])).await;
    let (keyring, _, attested) = broker.fetch(&init(&platform)).await;
    keyring.unwrap();
    assert_eq!(broker.seen()[..2], ["/kbs/v0/auth tdx", "/kbs/v0/attest quote"]);
    assert_eq!(platform.quotes(), 1);
    let summary = attested.summary().unwrap();
    assert_eq!(summary.tee, Tee::Tdx);
    let digest = cella_attest::td_launch_digest(&[7; 48], [&[0; 48]; 3]);
    assert_eq!((summary.measurement, summary.host_data), (digest.to_vec(), vec![8; 48]));
    assert_eq!(summary.tcb, "module=1 svn=5 microcode=2");
}

#[tokio::test]
async fn evidence_of_another_tee_than_at_boot_is_not_sent() {
    let platform = Platform::new(Tee::Tdx);
    let broker = Broker::start(|_| (200, vec![5; 32])).await;
    let init = BootInfo {
        tee: Tee::Snp,
        ..init(&platform)
    };
    let (keyring, ..) = broker.fetch(&init).await;
    assert!(matches!(keyring, Err(WorkloadError::Evidence { .. })), "{keyring:?}");
    assert_eq!(broker.seen(), ["/kbs/v0/auth snp"]);
}

/// The first question for a key finds the session over; afterwards all is well.
fn over_once(path: &str) -> (u16, Vec<u8>) {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    if path == "demo/model-kek/1" && ASKED.fetch_add(1, Ordering::Relaxed) == 0 {
        (401, over())
    } else {
        (200, vec![5; 32])
    }
}

fn over() -> Vec<u8> {
    let kind = "https://github.com/confidential-containers/kbs/errors/TokenNotFound";
    json!({"type": kind, "detail": "the session has expired"})
        .to_string()
        .into_bytes()
}

#[tokio::test]
async fn a_session_that_has_ended_is_replaced_once_and_no_key_is_fetched_twice() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(over_once).await;
    let (keyring, stages, attested) = broker.fetch(&init(&platform)).await;
    keyring.unwrap();
    assert_eq!(
        platform.quotes(),
        2,
        "a second evidence, since the first session has ended"
    );
    let seen = [
        "/kbs/v0/auth snp",
        "/kbs/v0/attest report",
        "/kbs/v0/resource/demo/image-kek/1 given",
        "/kbs/v0/resource/demo/model-kek/1",
        "/kbs/v0/auth snp",
        "/kbs/v0/attest report",
        "/kbs/v0/resource/demo/model-kek/1 given",
    ];
    assert_eq!(broker.seen(), seen);
    assert_eq!(names(&attested.summary().unwrap().keys), [IMAGE_KID, MODEL_KID]);
    let stages: Vec<_> = stages.snapshot().into_iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(stages, ["attest", "keys", "attest"]);
}

#[tokio::test]
async fn a_broker_that_ends_every_session_gets_no_third_evidence() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|_| (401, over())).await;
    let (keyring, ..) = broker.fetch(&init(&platform)).await;
    assert!(matches!(keyring, Err(WorkloadError::KeyRefused { .. })), "{keyring:?}");
    assert_eq!(platform.quotes(), 2);
}

#[tokio::test]
async fn a_denial_is_no_reason_for_a_second_evidence() {
    let platform = Platform::new(Tee::Snp);
    let broker = Broker::start(|_| (401, denied("measurement not in the rule"))).await;
    let (keyring, ..) = broker.fetch(&init(&platform)).await;
    assert!(matches!(keyring, Err(WorkloadError::KeyRefused { .. })), "{keyring:?}");
    assert_eq!(platform.quotes(), 1);
}
