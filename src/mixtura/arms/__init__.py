"""Black boxes that can be asked for samples: arrays, saved models, programs, services, pipelines (docs/arms.md)."""

from mixtura.arms.arm import Arm, ArmError, Exhausted, Function, Pool
from mixtura.arms.entries import load_arms
from mixtura.arms.process import Command, program
from mixtura.arms.web import Service

__all__ = ["Arm", "ArmError", "Command", "Exhausted", "Function", "Pool", "Service", "load_arms", "program"]
