"""The exact temporal cache: a ring of the last `window` frames, a position a row.

Legend of shape suffixes: B rows, N locations in a frame, H heads, K channels a head, W window.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LayerMemory:
    """One layer's part of the ring, as its attention sees it while the present frame is worked on."""

    keys_BNHWK: Tensor
    values_BNHWK: Tensor
    row_B: Tensor
    place_B: Tensor
    """Where in the ring the present frame lies."""
    empty_B111W: Tensor
    """Bool: places that no frame has taken yet."""

    def attend(self, q_BNHK: Tensor, k_BNHK: Tensor, v_BNHK: Tensor) -> Tensor:
        """Put the present frame's keys (rotated) and values into the ring and attend to all of it; [B, N, H, K].

        Written out, because with one query a location the fused kernels take twice the time on a CPU.
        """
        self.keys_BNHWK[self.row_B, :, :, self.place_B] = k_BNHK
        self.values_BNHWK[self.row_B, :, :, self.place_B] = v_BNHK
        score_BNH1W = (q_BNHK * q_BNHK.shape[-1] ** -0.5)[..., None, :] @ self.keys_BNHWK.transpose(-1, -2)
        weight_BNH1W = score_BNH1W.masked_fill(self.empty_B111W, -torch.inf).softmax(-1)
        return (weight_BNH1W @ self.values_BNHWK)[..., 0, :]


class TemporalCache:
    """Keys and values of the last `window` frames of every temporal layer.

    The frame at position p lies at place p mod `window`, its keys rotated once, for p. So the present frame takes the
    place of the one that has just left the band, as often as it is refined; to commit it is to move on by one
    position. Nothing is shifted or copied, and memory is flat.
    """

    def __init__(
        self, layers: int, rows: int, locations: int, heads: int, window: int, width: int, like: Tensor
    ) -> None:
        """`like`: a tensor of the device and number type to begin with."""
        shape = (layers, rows, locations, heads, window, width)
        self.keys, self.values = like.new_zeros(shape), like.new_zeros(shape)
        self.position = torch.zeros(rows, dtype=torch.long, device=like.device)
        """Position of the present frame [rows]: how many frames were committed."""

    def memories(self, dtype: torch.dtype) -> list[LayerMemory]:
        """The ring as each temporal layer sees it, kept in the number type `dtype` from now on."""
        if self.keys.dtype != dtype:
            self.keys, self.values = self.keys.to(dtype), self.values.to(dtype)
        rows, window = self.keys.shape[1], self.keys.shape[-2]
        row, place = torch.arange(rows, device=self.keys.device), self.position % window
        taken = torch.arange(window, device=self.keys.device) <= self.position[:, None]
        empty = ~taken[:, None, None, None]
        return [
            LayerMemory(keys, values, row, place, empty)
            for keys, values in zip(self.keys, self.values, strict=True)
        ]

    def commit(self) -> None:
        """The present frame stays; the next one begins."""
        self.position = self.position + 1

    def copy(self) -> TemporalCache:
        twin = object.__new__(TemporalCache)
        twin.keys, twin.values, twin.position = self.keys.clone(), self.values.clone(), self.position.clone()
        return twin

    def take_rows(self, rows: Tensor) -> TemporalCache:
        """A cache of `rows` (int64) alone."""
        part = object.__new__(TemporalCache)
        part.keys, part.values, part.position = self.keys[:, rows], self.values[:, rows], self.position[rows]
        return part

    def put_rows(self, rows: Tensor, other: TemporalCache) -> None:
        """Overwrite `rows` (int64) by all the rows of `other`."""
        self.keys[:, rows], self.values[:, rows] = other.keys.to(self.keys), other.values.to(self.values)
        self.position[rows] = other.position
