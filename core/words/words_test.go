package words

import "testing"

func TestNearestIsWhatWasMeantOrNothing(t *testing.T) {
	commands := []string{"calibrate", "evaluate", "evaluate-router", "plan", "prune", "predict"}
	for word, want := range map[string]string{
		"calibrat": "calibrate", "CALIBRATE": "calibrate", "calib": "calibrate",
		"evalaute": "evaluate", "evaluate_router": "evaluate-router", "router": "evaluate-router",
		"paln": "plan", "prun": "prune", "predcit": "predict",
		"frobnicate": "", "x": "", "": "", "pr": "",
	} {
		if got := Nearest(word, commands); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
	if got := Nearest("mpl", []string{"mlp", "heads", "embed"}); got != "mlp" {
		t.Errorf("got %q", got)
	}
}
