package arrowfile

// Version is written into every file as its producer's.
const Version = "0.1.0"

// Format is the number of the file layout that this package writes and reads.
const Format = "3"

// The kinds of file.
const (
	KindStatistics  = "statistics"
	KindScores      = "scores"
	KindPlan        = "plan"
	KindPredictions = "predictions"
	KindCurve       = "curve"
	KindLatency     = "latency"
	KindFrontier    = "frontier"
	KindTensor      = "tensor"
	KindLogits      = "logits"
	KindDecisions   = "decisions"
)

// Keys of the schema metadata.
const (
	keyKind        = "agflow.kind"
	keyFormat      = "agflow.format"
	keyProducer    = "agflow.producer"
	keyChecksum    = "agflow.checksum"
	keyModel       = "agflow.model"
	keyModelMACs   = "agflow.model_macs"
	keyModelParams = "agflow.model_params"
	keyCriterion   = "agflow.criterion"
	keySeed        = "agflow.seed"
	keyRequest     = "agflow.request"
	keyPlanned     = "agflow.planned"
	keyModelMS     = "agflow.model_ms"
	keyPrior       = "agflow.prior"
	keyTemperature = "agflow.temperature"
	keyThreshold   = "agflow.threshold"
	keyAnswers     = "agflow.answers"
	keyLightWeight = "agflow.light_weight"
	keyImages      = "agflow.images"
	keyTuning      = "agflow.tuning"
	keyLightMACs   = "agflow.light_macs"
	keyHeavyMACs   = "agflow.heavy_macs"
	keySharedMACs  = "agflow.shared_macs"
	keyLookMACs    = "agflow.look_macs"
	keyUtilityMACs = "agflow.utility_macs"
)
