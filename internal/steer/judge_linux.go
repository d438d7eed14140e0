package steer

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// scan returns the function that looks for the least loaded of a few members. In C:
//
//	long scan(long turn, long i)
//	{
//		u32 zero = 0;
//		u64 least = resting << 8;
//		struct state *s = lookup(&states, &zero);
//		if (!s)
//			return least;
//		u64 n = s->n, k = turn + i;
//		for (u64 j = 0; j < chunk && i < n; i++, j++, k++) {
//			if (k >= n)
//				k -= n;
//			u64 found = judge(k) << 8 | i;  // of equals, the one whose turn is first
//			if (found >= least)
//				continue;
//			least = found;
//			if (found >> 8 == 0)
//				break;
//		}
//		return least;
//	}
func scan(states *ebpf.Map) asm.Instructions {
	const (
		k, i, least, n = asm.R6, asm.R7, asm.R8, asm.R9
		zero           = -4
	)
	var rounds asm.Instructions
	for j := range chunk {
		member, next := fmt.Sprint("member ", j), fmt.Sprint("next member ", j)
		rounds = append(rounds,
			asm.JGE.Reg(i, n, "end of scan"),
			asm.JLT.Reg(k, n, member),
			asm.Sub.Reg(k, n),
			asm.Mov.Reg(asm.R1, k).WithSymbol(member),
			asm.Call.Label("judge"),
			asm.LSh.Imm(asm.R0, 8),
			asm.Or.Reg(asm.R0, i),
			asm.JGE.Reg(asm.R0, least, next),
			asm.Mov.Reg(least, asm.R0),
			asm.JLT.Imm(asm.R0, 256, "end of scan"),
			asm.Add.Imm(i, 1).WithSymbol(next),
			asm.Add.Imm(k, 1),
		)
	}
	return join(
		do(
			asm.Mov.Reg(k, asm.R1),
			asm.Add.Reg(k, asm.R2),
			asm.Mov.Reg(i, asm.R2),
			asm.LoadImm(least, resting<<8, asm.DWord),
			asm.StoreImm(asm.RFP, zero, 0, asm.Word),
		),
		lookup(states, zero),
		do(
			asm.JEq.Imm(asm.R0, 0, "end of scan"),
			asm.LoadMem(n, asm.R0, onN, asm.Word),
		),
		rounds,
		do(
			asm.Mov.Reg(asm.R0, least).WithSymbol("end of scan"),
			asm.Return(),
		),
	)
}

// judge returns the function that says how loaded a member is. In C:
//
//	long judge(long k)
//	{
//		u32 key = k, zero = 0;
//		struct entry *m = lookup(&members, &key);
//		if (!m || !m->ready)
//			return resting;
//		u64 sent = m->picked - m->base;
//		key = m->page;
//		void *map = lookup(&pages, &key);
//		if (!map)
//			return 0;                       // not known
//		struct counters *c = lookup(map, &zero);
//		if (!c)
//			return 0;
//		u64 closed = c->closed, accepted = c->accepted;
//		if ((s64)((accepted - closed) | (sent - accepted + absurd)) < 0)
//			return nonsense;                // the last to be taken
//		s64 load = sent - closed;
//		if (load <= 0)
//			return 0;
//		return load < nonsense ? load : nonsense;
//	}
func judge(members, pages *ebpf.Map) asm.Instructions {
	const (
		sent      = asm.R6
		key, zero = -4, -8
	)
	return join(
		do(asm.StoreMem(asm.RFP, key, asm.R1, asm.Word), asm.StoreImm(asm.RFP, zero, 0, asm.Word)),
		lookup(members, key),
		do(
			asm.JEq.Imm(asm.R0, 0, "resting"),
			asm.LoadMem(asm.R1, asm.R0, onReady, asm.Word),
			asm.JEq.Imm(asm.R1, 0, "resting"),
			asm.LoadMem(sent, asm.R0, onPicked, asm.DWord),
			asm.LoadMem(asm.R1, asm.R0, onBase, asm.DWord),
			asm.Sub.Reg(sent, asm.R1),
			asm.LoadMem(asm.R1, asm.R0, onPage, asm.Word),
			asm.StoreMem(asm.RFP, key, asm.R1, asm.Word),
		),
		lookup(pages, key),
		do(asm.JEq.Imm(asm.R0, 0, "idle"), asm.Mov.Reg(asm.R1, asm.R0)),
		lookup(nil, zero),
		do(
			asm.JEq.Imm(asm.R0, 0, "idle"),
			asm.LoadMem(asm.R3, asm.R0, onClosed, asm.DWord),
			asm.LoadMem(asm.R2, asm.R0, onAccepted, asm.DWord),
			asm.Mov.Reg(asm.R0, sent),
			asm.Sub.Reg(asm.R0, asm.R3),
			asm.Sub.Reg(sent, asm.R2),
			asm.Add.Imm(sent, absurd),
			asm.Sub.Reg(asm.R2, asm.R3),
			asm.Or.Reg(asm.R2, sent),
			asm.LoadImm(asm.R1, nonsense, asm.DWord),
			asm.JSLT.Imm(asm.R2, 0, "nonsense"),
			asm.JSLE.Imm(asm.R0, 0, "idle"),
			asm.JLT.Reg(asm.R0, asm.R1, "judged"),
			asm.Mov.Reg(asm.R0, asm.R1).WithSymbol("nonsense"),
			asm.Return().WithSymbol("judged"),
			asm.Mov.Imm(asm.R0, 0).WithSymbol("idle"),
			asm.Return(),
			asm.LoadImm(asm.R0, resting, asm.DWord).WithSymbol("resting"),
			asm.Return(),
		),
	)
}
