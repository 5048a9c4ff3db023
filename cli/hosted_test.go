package main

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"

	"agflow/bridge/pyhost"
)

// hostedCall is what a fake of hosted Python was asked last.
type hostedCall struct{ python, function, options string }

// fakePython takes the place of hosted Python until the test ends, and ends every call alike.
func fakePython(t *testing.T, answer string, err error) *hostedCall {
	t.Helper()
	var last hostedCall
	real := runHosted
	t.Cleanup(func() { runHosted = real })
	runHosted = func(python, module, function, options string) (string, error) {
		last = hostedCall{python, module + "." + function, options}
		return answer, err
	}
	return &last
}

// withoutRun takes away what identifies a run whose output has the default name.
var withoutRun = regexp.MustCompile(`"run":"[0-9a-f]{64}",`)

// Every flag reaches Python, those that were not given with their defaults or null. The command's
// own flags do not.
func TestFlagsReachPython(t *testing.T) {
	t.Chdir(fill(t, map[string]string{"l/config.json": "{}"}))
	last := fakePython(t, `{"summary": "done"}`, nil)
	for arguments, want := range map[string]string{
		"run --macs 0.5 --groups mlp --limit 7 --epochs 0 --ignored-layers blocks.0.*,head": `{` +
			`"batch_size":32,"batches":20,"class_map":null,"compensate":"ridge_at_once",` +
			`"confidence":0.95,"costs":"macs","criterion":"agf","crop":null,` +
			`"crop_mode":null,` +
			`"data":"example:train","device":"cpu","dtype":"float32","epochs":0,` +
			`"eval":"example:test","eval_limit":null,"force":false,"groups":["mlp"],` +
			`"ignored_layers":["blocks.0.*","head"],"image_column":null,` +
			`"interpolation":null,"label":null,"limit":7,"loss":"labels","lr":0.002,` +
			`"macs":"0.5",` +
			`"mean":[],"model":"example","output":"agflow-run","pruning_ratio":null,` +
			`"round_to":8,"seed":0,"std":[],"tolerance":0.0085,"weights":null,"workers":0}`,
		"run": `{` +
			`"batch_size":32,"batches":20,"class_map":null,"compensate":"ridge_at_once",` +
			`"confidence":0.95,"costs":"macs","criterion":"agf","crop":null,` +
			`"crop_mode":null,` +
			`"data":"example:train","device":"cpu","dtype":"float32","epochs":12,` +
			`"eval":"example:test","eval_limit":null,"force":false,` +
			`"groups":["mlp","heads","conv"],"ignored_layers":[],"image_column":null,` +
			`"interpolation":null,"label":null,"limit":null,"loss":"labels",` +
			`"lr":0.002,"macs":null,` +
			`"mean":[],"model":"example","output":"agflow-run","pruning_ratio":null,` +
			`"round_to":8,"seed":0,"std":[],"tolerance":0.0085,"weights":null,"workers":0}`,
		"finetune --light l --output o --features 0.5 --checkpoint c": `{` +
			`"accumulate":1,"batch_size":32,"checkpoint":"c","class_map":null,` +
			`"crop":null,"crop_mode":null,"data":"example:train","device":"cpu",` +
			`"distill":0.9,"dtype":"float32","epochs":3,"features":0.5,"heavy":"example",` +
			`"held_out":"0.1",` +
			`"image_column":null,"interpolation":null,"label":null,"light":"l",` +
			`"limit":null,"lr":0.0003,"mean":[],"offset":null,"output":"o","seed":0,"std":[],` +
			`"weights":null,"workers":0}`,
		"shrink --output o --macs 0.5 --held-out 0.2": `{` +
			`"batch_size":32,"batches":20,"class_map":null,"compensate":"ridge",` +
			`"criterion":"agf","crop":null,"crop_mode":null,` +
			`"data":"example:train","device":"cpu","dtype":"float32",` +
			`"groups":["mlp","heads","conv"],"held_out":0.2,"ignored_layers":[],` +
			`"image_column":null,"interpolation":null,` +
			`"label":null,"limit":null,"loss":null,"macs":"0.5","mean":[],` +
			`"model":"example",` +
			`"offset":null,"output":"o","params":null,"pruning_ratio":null,"round_to":8,` +
			`"seed":0,"std":[],"weights":null,"workers":0}`,
		"design --output o --classes 0,217 --macs 1,0.25 --shared-blocks 0,4 --ensemble": `{` +
			`"batch_size":32,"class_map":null,"classes":[0,217],"confidence":0.95,` +
			`"cost":"macs","crop":null,"crop_mode":null,"data":"example:train",` +
			`"device":"cpu","dtype":"float32","ensemble":true,"epochs":8,"force":false,` +
			`"groups":["mlp","heads","conv"],"held_out":null,"image_column":null,` +
			`"image_sizes":[],"interpolation":null,"label":null,"limit":null,"lr":0.0001,` +
			`"macs":[1,0.25],"mean":[],"model":"example","output":"o","seed":0,` +
			`"shared_blocks":[0,4],"std":[],"tolerance":0.005,"weights":null,"workers":0}`,
		"predict --light l --second-view": `{` +
			`"batch_size":32,"class_map":null,"costs":"macs","crop":null,"crop_mode":null,` +
			`"data":"example:test","device":"cpu","dtype":"float32","features":false,` +
			`"heavy":"example","image_column":null,"interpolation":null,"label":null,` +
			`"light":"l","limit":null,"mean":[],"offset":null,` +
			`"output":"predictions.arrow",` +
			`"second_view":true,"seed":0,"std":[],"weights":null,"workers":0}`,
		"--python p bench core --threads 1,4 --json --debug": `{"rounds":9,"threads":[1,4]}`,
	} {
		must(t, strings.Fields(arguments)...)
		if found := withoutRun.ReplaceAllString(last.options, ""); found != want {
			t.Errorf("agflow %s: got\n%s\nwant\n%s", arguments, last.options, want)
		}
	}
}

func TestHostedCommandsCallTheirFunctions(t *testing.T) {
	last := fakePython(t, `{"summary": "done", "found": 1}`, nil)
	for arguments, want := range map[string]string{
		"--python p evaluate":     "agflow.commands.evaluate",
		"evaluate --python p":     "agflow.commands.evaluate",
		"--python p bench core":   "agflow.commands.bench_core",
		"bench layers --python=p": "agflow.commands.bench_layers",
	} {
		out := must(t, strings.Fields(arguments)...)
		if last.python != "p" || last.function != want || out != "done\n" {
			t.Errorf("agflow %s: called %+v and printed %q", arguments, *last, out)
		}
	}
	answer := decode[map[string]any](t, "evaluate")
	if answer["summary"] != "done" || answer["found"] != 1.0 {
		t.Errorf("%v", answer)
	}
}

func TestExceptionsOfPython(t *testing.T) {
	coded := &pyhost.Error{Type: "ShapeError", Code: "shape", Message: "y has 3 rows, expected 4"}
	foreign := &pyhost.Error{
		Type: "ZeroDivisionError", Message: "division by zero",
		Traceback: "Traceback (most recent call last):\n  in inner\n",
	}
	interrupt := &pyhost.Error{Type: "KeyboardInterrupt"}
	for _, test := range []struct {
		exception error
		arguments string
		status    int
		says      string
	}{
		{coded, "evaluate", exitBadData, "agflow: y has 3 rows, expected 4\n"},
		{foreign, "evaluate", exitPython, "agflow: ZeroDivisionError: division by zero (--debug " +
			"shows where in Python; `agflow doctor` checks the installation)\n"},
		{foreign, "--debug evaluate", exitPython, foreign.Traceback + "agflow: ZeroDivisionError"},
		{foreign, "evaluate --debug", exitPython, foreign.Traceback + "agflow: ZeroDivisionError"},
		{interrupt, "evaluate", exitInterrupted, "agflow: interrupted\n"},
		{pythonError(errors.New("no Python")), "evaluate", exitPython, "agflow: no Python\n"},
	} {
		fakePython(t, "", test.exception)
		_, complaint, status := agflow(strings.Fields(test.arguments)...)
		if status != test.status || !strings.HasPrefix(complaint, test.says) {
			t.Errorf("%s: status %d: %s", test.arguments, status, complaint)
		}
	}
}

func TestAnswersOfPythonAreJSON(t *testing.T) {
	fakePython(t, "done", nil)
	refuses(t, "evaluate", map[string]refusal{
		"": {exitPython, "agflow.commands.evaluate returned no JSON object"},
	})
	out, _, status := agflow("evaluate", "--json")
	var reported struct{ Exit int }
	if err := json.Unmarshal([]byte(out), &reported); err != nil || reported.Exit != status {
		t.Error(out, err)
	}
}
