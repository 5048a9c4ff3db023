//go:build python

package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"agflow/bridge/pyhost"
	"agflow/cli/serving"
	"agflow/core/fault"
	"agflow/core/routing"
)

// modelOf reads what agflow.serving says of a cascade that it has loaded.
func modelOf(text string) (serving.Model, error) {
	var said struct {
		Name           string          `json:"name"`
		Revision       string          `json:"revision"`
		Runtime        string          `json:"runtime"`
		RuntimeVersion string          `json:"runtime_version"`
		Channels       int             `json:"channels"`
		Height         int             `json:"height"`
		Width          int             `json:"width"`
		Classes        int             `json:"classes"`
		ClassNames     []string        `json:"class_names"`
		Router         json.RawMessage `json:"router"`
		LightCost      float64         `json:"light_cost"`
		HeavyCost      float64         `json:"heavy_cost"`
		SharedCost     float64         `json:"shared_cost"`
		CostUnit       string          `json:"cost_unit"`
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil {
		return serving.Model{}, fmt.Errorf("agflow.serving did not describe the cascade: %w", err)
	}
	model := serving.Model{
		Name: said.Name, Revision: said.Revision, Runtime: said.Runtime + " " + said.RuntimeVersion,
		Channels: said.Channels, Height: said.Height, Width: said.Width, Classes: said.Classes,
		ClassNames: said.ClassNames,
		Cost: routing.Cost{
			Light: said.LightCost, Heavy: said.HeavyCost, Shared: said.SharedCost,
			Unit: said.CostUnit,
		},
	}
	if err := json.Unmarshal(said.Router, &model.Router); err != nil {
		return serving.Model{}, fmt.Errorf("agflow.serving did not describe the router: %w", err)
	}
	// one image that did not escalate: only the costs are checked
	if _, err := routing.NewLedger(model.Cost, 1, 0); err != nil {
		return serving.Model{}, err
	}
	return model, nil
}

// faultOf gives an exception of agflow the code that it has in Go.
func faultOf(err error) error {
	var python *pyhost.Error
	if errors.As(err, &python) && python.Code != "" {
		return fault.New(fault.Code(python.Code), "%s", python.Message)
	}
	return err
}
