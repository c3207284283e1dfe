package main
func power(t *trial) error {return nil}
func diskFull(t *trial) error {return nil}
func bits(t *trial) error {return nil}
func engineFaults(t *trial) error {return nil}
func misbehave(t *trial) error {return nil}
func images(t *trial) error {return nil}
func fence(t *trial) error {return nil}
func failover(t *trial) error {return nil}
type dockerd struct{}
func (d *dockerd) remove(){}
func clock(t *trial) error {return nil}
