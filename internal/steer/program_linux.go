package steer

import (
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
)

// What the program shares with us. The kernel's side is in the comment of program.
type (
	// state is of the whole group. All but turn is written by us alone.
	state struct {
		n    uint32 // members are below
		turn uint32 // where the search begins, the one behind the last
		only uint32 // noMember, or who gets everything
		_    uint32
	}
	// entry is one member, a cache line: several processors pick at once.
	entry struct {
		ready  uint32
		page   uint32 // where in pages, or noPage
		picked uint64 // added to by the program
		base   uint64 // written by us: picked - base is what its worker was sent
		_      [5]uint64
	}
)

const (
	noMember = uint32(math.MaxUint32)
	noPage   = uint32(math.MaxUint32)

	// where in the structs
	onN, onTurn, onOnly               = 0, 4, 8
	onReady, onPage, onPicked, onBase = 0, 4, 8, 16
	onAccepted, onClosed              = 0, 8

	// what judge returns; a load is below
	resting  = 1 << 40
	nonsense = resting - 1

	chunk = 16 // how many members scan looks at
)

// program returns the eBPF program. In C:
//
//	struct { REUSEPORT_SOCKARRAY, [MaxMembers]               } socks;
//	struct { ARRAY, MMAPABLE, struct entry [MaxMembers]      } members;
//	struct { ARRAY, MMAPABLE, struct state [1]               } states;
//	struct { ARRAY_OF_MAPS, struct counters [1] [maxPages]   } pages;
//
//	SEC("sk_reuseport") int steer(struct sk_reuseport_md *ctx)
//	{
//		u32 zero = 0;
//		struct state *s = lookup(&states, &zero);
//		if (!s)
//			return SK_PASS;
//		u64 turn = s->turn;
//		u32 best = s->only;
//		if (best < MaxMembers)
//			goto pick;
//		u64 least = resting << 8;
//		for (u64 i = 0; i < MaxMembers && i < s->n; i += chunk) {
//			u64 found = scan(turn, i);
//			if (found >= least)
//				continue;
//			least = found;
//			if (found >> 8 == 0)
//				break;                      // none can have fewer
//		}
//		if (least >= resting << 8)
//			return SK_PASS;                 // nobody is ready: the kernel's hash
//		best = turn + (least & 255);
//		if (best >= s->n)
//			best -= s->n;
//	pick:
//		if (bpf_sk_select_reuseport(ctx, &socks, &best, 0))
//			return SK_PASS;                 // it left the group: the kernel's hash
//		s->turn = best + 1;
//		struct entry *m = lookup(&members, &best);
//		if (m)
//			__sync_fetch_and_add(&m->picked, 1);
//		return SK_PASS;
//	}
//
// The loops are unrolled, and scan and judge are global functions in the sense of
// BTF, at each of which the verifier looks once and by itself. In one loop of 256
// rounds it follows each round and each branch in it apart, which are more than the
// million steps that it makes; and in a loop of any length it looks for what the
// processor would do in speculation, unless we have CAP_PERFMON, and finds no end.
//
// Two processors may pick at the same time and take the same member, where one
// after the other they would have taken two: loads then differ by the number of
// processors, until the next picks make up for it.
func program(socks, members, states, pages *ebpf.Map) asm.Instructions {
	const (
		ctx, s, turn, least = asm.R6, asm.R7, asm.R8, asm.R9
		best, zero          = -4, -8 // on the stack
	)
	var rounds asm.Instructions
	for i := int32(0); i < MaxMembers; i += chunk {
		next := fmt.Sprint("from ", i+chunk)
		if i+chunk == MaxMembers {
			next = "found"
		}
		rounds = append(rounds,
			asm.LoadMem(asm.R1, s, onN, asm.Word).WithSymbol(fmt.Sprint("from ", i)),
			asm.JLE.Imm(asm.R1, i, "found"),
			asm.Mov.Reg(asm.R1, turn),
			asm.Mov.Imm(asm.R2, i),
			asm.Call.Label("scan"),
			asm.JGE.Reg(asm.R0, least, next),
			asm.Mov.Reg(least, asm.R0),
			asm.JLT.Imm(asm.R0, 256, "found"),
		)
	}
	p := join(
		do(asm.Mov.Reg(ctx, asm.R1), asm.StoreImm(asm.RFP, zero, 0, asm.Word)),
		lookup(states, zero),
		do(
			asm.JEq.Imm(asm.R0, 0, "exit"),
			asm.Mov.Reg(s, asm.R0),
			asm.LoadMem(turn, s, onTurn, asm.Word),
			asm.LoadMem(asm.R1, s, onOnly, asm.Word),
			asm.StoreMem(asm.RFP, best, asm.R1, asm.Word),
			asm.JLT.Imm(asm.R1, MaxMembers, "pick"),
			asm.LoadImm(least, resting<<8, asm.DWord),
		),
		rounds,
		do(
			asm.LoadImm(asm.R1, resting<<8, asm.DWord).WithSymbol("found"),
			asm.JGE.Reg(least, asm.R1, "exit"),
			asm.And.Imm(least, 255),
			asm.Add.Reg(least, turn),
			asm.LoadMem(asm.R1, s, onN, asm.Word),
			asm.JLT.Reg(least, asm.R1, "within"),
			asm.Sub.Reg(least, asm.R1),
			asm.StoreMem(asm.RFP, best, least, asm.Word).WithSymbol("within"),

			asm.Mov.Reg(asm.R1, ctx).WithSymbol("pick"),
			asm.LoadMapPtr(asm.R2, socks.FD()),
			asm.Mov.Reg(asm.R3, asm.RFP),
			asm.Add.Imm(asm.R3, best),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnSkSelectReuseport.Call(),
			asm.JNE.Imm(asm.R0, 0, "exit"),
			asm.LoadMem(asm.R1, asm.RFP, best, asm.Word),
			asm.Add.Imm(asm.R1, 1),
			asm.StoreMem(s, onTurn, asm.R1, asm.Word),
		),
		lookup(members, best),
		do(
			asm.JEq.Imm(asm.R0, 0, "exit"),
			asm.Mov.Imm(asm.R1, 1),
			asm.AddAtomic.Mem(asm.R0, asm.R1, asm.DWord, onPicked),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("exit"), // SK_PASS
			asm.Return(),
		),
	)
	return join(function("steer", btf.StaticFunc, p, "ctx"), function("scan", btf.GlobalFunc, scan(states), "turn", "start"),
		function("judge", btf.GlobalFunc, judge(members, pages), "k"))
}

// lookup leaves in R0 what a map has for the key at a place in the stack. Without a
// map it is that in R1.
func lookup(m *ebpf.Map, at int32) asm.Instructions {
	ins := do(asm.Mov.Reg(asm.R2, asm.RFP), asm.Add.Imm(asm.R2, at))
	if m != nil {
		ins = append(ins, asm.LoadMapPtr(asm.R1, m.FD()))
	}
	return append(ins, asm.FnMapLookupElem.Call())
}

func do(ins ...asm.Instruction) asm.Instructions { return ins }

func join(parts ...asm.Instructions) asm.Instructions {
	var p asm.Instructions
	for _, part := range parts {
		p = append(p, part...)
	}
	return p
}

// function gives a function its name and type, which BTF needs for global ones.
func function(name string, linkage btf.FuncLinkage, p asm.Instructions, params ...string) asm.Instructions {
	long := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	proto := &btf.FuncProto{Return: long}
	for _, name := range params {
		proto.Params = append(proto.Params, btf.FuncParam{Name: name, Type: long})
	}
	p[0] = btf.WithFuncMetadata(p[0], &btf.Func{Name: name, Type: proto, Linkage: linkage}).WithSymbol(name)
	return p
}
