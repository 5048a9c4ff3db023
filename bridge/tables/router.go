package tables

import (
	"agflow/bridge/ipcfile"
	"agflow/core/routing"
	"agflow/core/strictjson"
)

// WriteRouter writes router.json, whole or not at all, and returns its bytes.
func WriteRouter(path string, router routing.Router) (size int64, err error) {
	content, err := router.Encode()
	if err != nil {
		return 0, err
	}
	return int64(len(content)), ipcfile.WriteBytes(path, content)
}

// ReadRouter reads router.json.
func ReadRouter(path string) (routing.Router, error) {
	content, err := ipcfile.ReadBytes(path, strictjson.MaxBytes)
	if err != nil {
		return routing.Router{}, err
	}
	router, err := routing.ParseRouter(content)
	if err != nil {
		return routing.Router{}, ipcfile.Named(path, err)
	}
	return router, nil
}
