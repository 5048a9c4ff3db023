package tables

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
	keyModel         = "agflow.model"
	keyModelMACs     = "agflow.model_macs"
	keyModelParams   = "agflow.model_params"
	keyCriterion     = "agflow.criterion"
	keySeed          = "agflow.seed"
	keyRequest       = "agflow.request"
	keyPlanned       = "agflow.planned"
	keyModelMS       = "agflow.model_ms"
	keyPrior         = "agflow.prior"
	keyTemperature   = "agflow.temperature"
	keyThreshold     = "agflow.threshold"
	keyAnswers       = "agflow.answers"
	keyLightWeight   = "agflow.light_weight"
	keyImages        = "agflow.images"
	keyTuning        = "agflow.tuning"
	keyLightCost     = "agflow.light_cost"
	keyHeavyCost     = "agflow.heavy_cost"
	keySharedCost    = "agflow.shared_cost"
	keyViewCost      = "agflow.second_view_cost"
	keyUtilityCost   = "agflow.utility_cost"
	keyCostUnit      = "agflow.cost_unit"
	keyChannelGroups = "agflow.channel_groups"
	keyKept          = "agflow.kept"
	keyImageSize     = "agflow.image_size"
	keyHeavyAccuracy = "agflow.heavy_accuracy"
	keyTolerance     = "agflow.tolerance"
	keyChosen        = "agflow.chosen"
)

// Keys of the field metadata of tensor files and of logits.
const (
	keyDtype      = "agflow.dtype"
	keyLayer      = "agflow.layer"
	keyGroup      = "agflow.group"
	keyRole       = "agflow.role"
	keyUnits      = "agflow.units"
	keyUnitWidth  = "agflow.unit_width"
	keyParts      = "agflow.parts"
	keyUnitMACs   = "agflow.unit_macs"
	keyUnitParams = "agflow.unit_params"
	keyUnitAxis   = "agflow.unit_axis"
)
