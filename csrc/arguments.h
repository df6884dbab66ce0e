// The arguments of mvae_fast::solve and its backward, checked, on any device.
#pragma once

#include <utility>

#include "sizes.h"
#include "torch_abi.h"

namespace mvae_fast {

using Tensors = std::vector<Tensor>;

// What mvae_fast::solve is called with. `tensors` are all that a velocity is made of, in any order,
// and `layout` says which is which:
//
//   Form::tables        form, weight, gate, bias, trace, second, u_1 .. u_L
//   Form::coefficients  form, time, F, L layers, u_1 .. u_L, where a layer is
//                       weight, offset, ld and 3 F columns (B, G, H) of: tensor, offset, stride;
//                       of one that is not there only the tensor, -1
//
// Tensors are given by their index, -1 for none. A column is a piece of a tensor, so that no tensor
// has to be cut up before the call: a view costs PyTorch as much as a small layer costs us.
struct Call {
  const Tensor &z, &h;
  const std::optional<Tensor>& probes;
  const Tensors& tensors;
  const Ints &widths, &layout;
  int64_t nonlinearity;
  bool residual, exact;
  const Doubles &a, &b;
  const Ints& outputs;
  int64_t checkpoint_every, penalties, operands;
};

// Everything of the problem but the velocity.
template <class T>
Problem<T> check_method(const Call& x) {
  const Home home = Home::of(x.z);
  const int64_t L = static_cast<int64_t>(x.widths.size()) - 1;
  require(L >= 1, "widths has ", L + 1, " entries, expected at least 2");
  for (int64_t m : x.widths) require(m >= 1, "widths holds ", m, ", expected positive widths");
  const int64_t D = x.widths.front();
  require(x.widths.back() == D, "widths goes from ", D, " to ", x.widths.back(),
          ", expected the same");
  check("z", x.z, home, {-1, D});
  check("h", x.h, home, {-1});

  Problem<T> p{};
  p.B = x.z.size(0);
  p.S = x.h.size(0);
  p.L = L;
  require(p.S >= 1, "h has no steps, expected at least one");
  p.R = static_cast<int64_t>(x.b.size());
  require(p.R >= 1 && x.a.size() == x.b.size() * x.b.size(), "a has ", x.a.size(),
          " entries and b ", p.R, ", expected R * R and R");
  for (int64_t i = 0; i < p.R; ++i)
    for (int64_t j = i; j < p.R; ++j)
      require(x.a[static_cast<size_t>(i * p.R + j)] == 0,
              "a must be zero on and above its diagonal");
  require(p.R > 1 || x.b[0] == 1, "b is ", x.b[0], " for a single stage, expected 1");
  require(size_product(p.S, p.R) < kTooMany, "h has ", p.S, " steps, too many of ", p.R, " stages");
  require(x.checkpoint_every >= 1, "checkpoint_every is ", x.checkpoint_every, ", expected >= 1");
  require(x.penalties >= 0 && x.penalties < 2 * kFrobenius, "penalties is ", x.penalties,
          ", expected a sum of 1, 2, 4 and 8");
  require(!(x.penalties & kFrobenius) || x.probes,
          "penalties includes that of J eps without probes");
  require(x.operands >= 0 && x.operands <= static_cast<int64_t>(Operands::tf32), "operands is ",
          x.operands, ", expected 0 to 3");
  require(!x.operands || home.dtype == ScalarType::Float, "rounded operands need a float32 z");
  if (x.probes) {
    check("probes", *x.probes, home, {-1, p.B, D}, false);
    p.K = x.probes->size(0);
    p.probe_stride = x.probes->stride(0);
    p.probe_row_stride = p.B > 1 ? x.probes->stride(1) : D;
    require(D == 1 || x.probes->stride(2) == 1, "probes must be contiguous in its last axis");
    require(p.probe_row_stride == 0 || p.probe_row_stride == D,
            "probes must be contiguous or expanded over rows");
  }
  require(!x.outputs.empty() && x.outputs.back() == p.S,
          "outputs must end with the number of steps, ", p.S);
  for (size_t i = 0; i < x.outputs.size(); ++i)
    require(x.outputs[i] > (i ? x.outputs[i - 1] : 0), "outputs must ascend from 1");

  p.widths = x.widths.data();
  p.nonlinearity = nonlinearity_of(x.nonlinearity);
  p.operands = static_cast<Operands>(x.operands);
  p.residual = x.residual;
  p.penalties = x.penalties;
  p.a = x.a.data();
  p.b = x.b.data();
  // The same states are saved, and the room for those between two stays within the steps.
  p.checkpoint = x.checkpoint_every < p.S ? x.checkpoint_every : p.S;
  p.z = data<T>(x.z);
  p.h = data<T>(x.h);
  p.probes = p.K ? data<T>(x.probes) : nullptr;
  p.outputs = x.outputs.data();
  p.n_outputs = static_cast<int64_t>(x.outputs.size());
  return p;
}

// Pointers into the tensors of a velocity, or into their gradients (T without const).
template <class T>
struct Velocity {
  // Tables.
  T *weight, *gate, *bias, *trace, *second;
  // Coefficients.
  T* time;
  std::vector<Column<T>> columns;
  std::vector<Coefficients<T>> layers;
  // Both.
  std::vector<T*> context;
};

// `count` stretches of `width` numbers of a tensor, `stride` apart from `offset` on.
struct Piece {
  int64_t tensor, offset, stride, count, width;

  int64_t end() const { return offset + (count - 1) * stride + width; }
};

// Whether two pieces of the same tensor have a number in common.
inline bool overlap(const Piece& x, const Piece& y) {
  if (!x.width || !y.width || x.offset >= y.end() || y.offset >= x.end()) return false;
  if (x.stride == y.stride) {  // columns of one matrix
    const int64_t between = ((y.offset - x.offset) % x.stride + x.stride) % x.stride;
    return between < x.width || x.stride - between < y.width;
  }
  for (int64_t i = 0; i < x.count; ++i) {
    const int64_t begin = x.offset + i * x.stride - y.offset;  // from y on
    if (begin + x.width <= 0) continue;
    const int64_t last = (begin + x.width - 1) / y.stride;  // of y's stretches that begin before
    if ((last < y.count ? last : y.count - 1) * y.stride + y.width > begin) return true;
  }
  return false;
}

// Walks a layout and hands out pointers: `address(index)` is that of a tensor. What is checked of a
// tensor is checked here, in `pieces`: which of its numbers have a place.
template <class T, class Address>
class Placement {
 public:
  Placement(const Call& call, int64_t rows, const Address& address)
      : call_(call), rows_(rows), address_(address) {
    const Home home = Home::of(call.z);
    for (const Tensor& x : call.tensors) check_home("a tensor", x, home, true);
    pieces.reserve(2 * call.tensors.size());
  }

  std::vector<Piece> pieces;

  Velocity<T> velocity() {
    const int64_t form = next();
    require(form == 0 || form == 1, "layout begins with ", form, ", expected 0 or 1");
    Velocity<T> v{};
    if (static_cast<Form>(form) == Form::tables)
      tables(v);
    else
      coefficients(v);
    for (size_t l = 1; l < call_.widths.size(); ++l) {
      const int64_t i = next();
      v.context.push_back(i < 0 ? nullptr : whole("context", i, {rows_, call_.widths[l]}));
    }
    require(at_ == call_.layout.size(), "layout has ", call_.layout.size(), " numbers, expected ",
            at_);
    return v;
  }

 private:
  int64_t next() {
    require(at_ < call_.layout.size(), "layout has ", call_.layout.size(), " numbers, too few");
    return call_.layout[at_++];
  }
  const Tensor& tensor(int64_t index) const {
    require(index >= 0 && index < static_cast<int64_t>(call_.tensors.size()),
            "layout names tensor ", index, " of ", call_.tensors.size());
    return call_.tensors[static_cast<size_t>(index)];
  }
  T* whole(const char* name, int64_t index, const Ints& sizes) {
    const Tensor& x = tensor(index);
    check_sizes(name, x, sizes);
    pieces.push_back({index, 0, 1, 1, x.numel()});
    return address_(index);
  }
  T* table(const char* name, bool required, int64_t size) {
    const int64_t index = next();
    require(index >= 0 || !required, "layout has no ", name);
    require(size < kTooMany, "widths are too large for any tensor");
    return index < 0 ? nullptr : whole(name, index, {-1, size});
  }
  // Numbers offset + i stride of a tensor, for `count` i and `width` neighbours of each.
  T* piece(const char* name, int64_t index, int64_t offset, int64_t stride, int64_t count,
           int64_t width) {
    const Tensor& x = tensor(index);
    const int64_t end = size_sum(size_sum(offset, width), size_product(count - 1, stride));
    require(offset >= 0 && stride >= width && end <= x.numel(), name, " has ", x.numel(),
            " numbers, expected ", count, " times ", width, " that are ", stride, " apart from ",
            offset, " on");
    pieces.push_back({index, offset, stride, count, width});
    return address_(index) + offset;
  }

  void tables(Velocity<T>& v) {
    const Ints& widths = call_.widths;
    const int64_t L = static_cast<int64_t>(widths.size()) - 1;
    int64_t features = 0, weights = 0;
    for (int64_t l = 1; l <= L; ++l) {
      features = size_sum(features, widths[l]);
      weights = size_sum(weights, size_product(widths[l], widths[l - 1]));
    }
    const int64_t trace = L == 1 ? 1 : L == 2 ? widths[1] : size_product(widths[1], widths[2]);
    v.weight = table("weight", true, weights);
    v.gate = table("gate", false, features);
    v.bias = table("bias", true, features);
    v.trace = table("trace", false, trace);
    v.second = table("second", false, L == 2 ? size_product(widths[1], widths[1]) : 0);
  }

  void coefficients(Velocity<T>& v) {
    const int64_t time = next(), F = next(), E = size_product(call_.h.size(0), stages());
    require(F >= 1 && F <= kMostFeatures, "layout has ", F, " time features, expected 1 to ",
            kMostFeatures);
    v.time = tensor(time).dim() == 1 ? whole("time", time, {E}) : whole("time", time, {E, F});
    require(tensor(time).dim() > 1 || F == 2, "layout has ", F, " time features, expected 2");
    const size_t L = call_.widths.size() - 1;
    v.layers.reserve(L);
    v.columns.resize(L * 3 * static_cast<size_t>(F));
    Column<T>* column = v.columns.data();
    for (size_t l = 1; l <= L; ++l) {
      const int64_t m = call_.widths[l], before = call_.widths[l - 1];
      const int64_t index = next(), offset = next(), ld = next();
      Coefficients<T> layer{piece("weight", index, offset, ld, m, before), ld, nullptr, nullptr,
                            nullptr};
      const Column<T>** const kinds[] = {&layer.bias, &layer.gate, &layer.late_bias};
      for (const Column<T>** kind : kinds) {
        bool any = false;
        Column<T>* const first = column;
        for (int64_t f = 0; f < F; ++f, ++column) {
          const int64_t i = next();
          if (i < 0) continue;
          const int64_t from = next(), stride = next();
          *column = {piece("a column", i, from, stride, m, 1), stride};
          any = true;
        }
        *kind = any || kind != &layer.gate ? first : nullptr;
      }
      v.layers.push_back(layer);
    }
  }
  int64_t stages() const { return static_cast<int64_t>(call_.b.size()); }

  const Call& call_;
  int64_t rows_;
  const Address& address_;
  size_t at_ = 0;
};

template <class T>
struct Checked {
  Problem<T> p;
  Velocity<const T> velocity;  // p points into it
};

template <class T>
void check_exact(const Problem<T>& p, bool exact) {
  require(!exact || p.L <= 3, "the exact trace is wanted of ", p.L,
          " layers, but a closed form exists up to 3");
  require(!exact || !p.K || (p.penalties & kFrobenius),
          "both an exact trace and probes are given, expected at most one");
}

template <class T>
Checked<T> check_call(const Call& x) {
  Checked<T> out{check_method<T>(x), {}};
  Problem<T>& p = out.p;
  const auto address = [&](int64_t i) { return data<T>(x.tensors[static_cast<size_t>(i)]); };
  out.velocity = Placement<const T, decltype(address)>(x, p.B, address).velocity();
  const Velocity<const T>& v = out.velocity;
  for (const T* u : v.context)
    if (u) p.context = v.context.data();
  check_exact(p, x.exact || v.trace);
  if (!v.layers.empty()) {
    const Tensor& time = x.tensors[static_cast<size_t>(x.layout[1])];
    p.layers = v.layers.data();
    p.time = v.time;
    p.F = x.layout[2];
    p.features = time.dim() > 1;
    p.exact = x.exact;
    return out;
  }
  require(!x.exact || v.trace, "the exact trace is wanted, but its table is not given");
  require(!v.second || (v.trace && p.L == 2 && p.R == 1),
          "second needs trace, one hidden layer and Euler's method");
  const auto stride = [&](const char* name, size_t slot) {
    const int64_t index = x.layout[slot];
    if (index < 0) return int64_t{0};
    const Tensor& table = x.tensors[static_cast<size_t>(index)];
    const int64_t rows = table.size(0);
    require(rows == 1 || rows == p.S * p.R, name, " has ", rows, " rows, expected 1 or ",
            p.S * p.R);
    return rows == 1 ? 0 : table.size(1);
  };
  p.weight = v.weight;
  p.gate = v.gate;
  p.bias = v.bias;
  p.trace = v.trace;
  p.second = v.second;
  p.weight_stride = stride("weight", 1);
  p.gate_stride = stride("gate", 2);
  p.bias_stride = stride("bias", 3);
  p.trace_stride = stride("trace", 4);
  p.second_stride = stride("second", 5);
  return out;
}

inline int64_t penalty_count(int64_t penalties) {
  int64_t count = 0;
  for (; penalties; penalties /= 2) count += penalties % 2;
  return count;
}

using Outputs = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// How many numbers of `saved` are kept, and how many are states, which come after them.
template <class T>
std::pair<int64_t, int64_t> saved_sizes(const Problem<T>& p) {
  return {size_product(size_product(p.S * p.R, p.B), kept_numbers(p)),
          size_product((p.S - 1) / p.checkpoint, size_product(p.B, p.widths[0]))};
}

// `save` is 0, or what a backward will need: 1, the states; 2, what is kept as well.
template <class T>
Outputs new_outputs(const Problem<T>& p, const Tensor& like, int64_t save) {
  require(save >= 0 && save <= 2, "save is ", save, ", expected 0, 1 or 2");
  require(save < 2 || p.checkpoint == 1, "save is 2 with checkpoint_every ", p.checkpoint,
          ", expected 1");
  const auto [kept, states] = saved_sizes(p);
  const int64_t saved = save == 2 ? size_sum(kept, states) : save ? states : 0;
  return {new_tensor(like, {p.n_outputs, p.B, p.widths[0]}), new_tensor(like, {p.n_outputs, p.B}),
          new_tensor(like, {p.n_outputs, penalty_count(p.penalties), p.B}),
          in_huge_pages(new_tensor(like, {saved}))};
}

template <class T>
ForwardOutputs<T> addresses(const Problem<T>& p, const Outputs& x, int64_t save) {
  T* const saved = out<T>(std::get<3>(x));
  return {out<T>(std::get<0>(x)), out<T>(std::get<1>(x)), out<T>(std::get<2>(x)),
          save ? saved + (save == 2 ? saved_sizes(p).first : 0) : nullptr,
          save == 2 ? saved : nullptr};
}

struct GradOutputs {
  const Tensor &z, &logp;
  const std::optional<Tensor>& penalty;  // none where no penalties are wanted
  const Tensor& saved;
};

template <class T>
BackwardInputs<T> check_gradients(const Problem<T>& p, const GradOutputs& x) {
  const int64_t D = p.widths[0];
  const Home home = Home::of(x.z);
  check("grad_z", x.z, home, {p.n_outputs, p.B, D});
  check("grad_logp", x.logp, home, {p.n_outputs, p.B});
  require(!p.penalties || x.penalty, "grad_penalties is missing");
  if (x.penalty)
    check("grad_penalties", *x.penalty, home, {p.n_outputs, penalty_count(p.penalties), p.B});
  const auto [kept, states] = saved_sizes(p);
  const bool keeps = kept && x.saved.numel() == size_sum(kept, states) && p.checkpoint == 1;
  check("saved", x.saved, home, {keeps ? kept + states : states});
  const T* const saved = data<T>(x.saved);
  return {data<T>(x.z), data<T>(x.logp), data<T>(x.penalty), keeps ? saved + kept : saved,
          keeps ? saved : nullptr};
}

using Gradients = std::tuple<Tensor, Tensor, Tensors>;

// Tensors for the gradients of z, h and, with `wanted`, of all others; and where they go.
template <class T>
struct Backward {
  Gradients gradients;
  BackwardOutputs<T> outputs{};
  Velocity<T> velocity;  // outputs points into it

  Backward(const Call& x, bool wanted) {
    Tensor& z = std::get<0>(gradients);
    Tensor& h = std::get<1>(gradients);
    Tensors& tensors = std::get<2>(gradients);  // not a structured binding: a lambda takes it
    z = new_like(x.z);
    h = new_like(x.h);
    outputs.z = out<T>(z);
    outputs.h = out<T>(h);
    if (!wanted) return;
    tensors.reserve(x.tensors.size());
    for (const Tensor& t : x.tensors) tensors.push_back(new_like(t));
    const auto address = [&](int64_t i) { return out<T>(tensors[static_cast<size_t>(i)]); };
    Placement<T, decltype(address)> placement(x, x.z.size(0), address);
    velocity = placement.velocity();
    const std::vector<Piece>& pieces = placement.pieces;
    std::vector<int64_t> used(tensors.size(), 0);
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = pieces[i];
      for (size_t j = 0; j < i; ++j)
        require(pieces[j].tensor != piece.tensor || !overlap(pieces[j], piece),
                "layout uses numbers of tensor ", piece.tensor,
                " twice: one of them would lose its gradient");
      used[static_cast<size_t>(piece.tensor)] += piece.count * piece.width;
    }
    for (size_t i = 0; i < tensors.size(); ++i)
      if (used[i] < tensors[i].numel()) torch::stable::zero_(tensors[i]);
    outputs.weight = velocity.weight;
    outputs.gate = velocity.gate;
    outputs.bias = velocity.bias;
    outputs.trace = velocity.trace;
    outputs.second = velocity.second;
    outputs.time = velocity.time;
    outputs.layers = velocity.layers.empty() ? nullptr : velocity.layers.data();
    outputs.context = velocity.context.data();
  }
};

// The functions of both ops as PyTorch calls them, for the dtypes that a device has.
template <class Device>
struct Op {
  static Outputs solve(const Tensor& z, const Tensor& h, const std::optional<Tensor>& probes,
                       const Tensors& tensors, const Ints& widths, const Ints& layout,
                       int64_t nonlinearity, bool residual, bool exact, const Doubles& a,
                       const Doubles& b, const Ints& outputs, int64_t checkpoint_every,
                       int64_t penalties, int64_t operands, int64_t save) {
    const Call call{z,     h, probes, tensors, widths,           layout,    nonlinearity, residual,
                    exact, a, b,      outputs, checkpoint_every, penalties, operands};
    if constexpr (Device::kDouble)
      if (z.scalar_type() == ScalarType::Double)
        return Device::template forward<double>(call, save);
    check_dtype(z);
    return Device::template forward<float>(call, save);
  }
  static Gradients solve_backward(const Tensor& grad_z, const Tensor& grad_logp,
                                  const std::optional<Tensor>& grad_penalty, const Tensor& saved,
                                  const Tensor& z, const Tensor& h,
                                  const std::optional<Tensor>& probes, const Tensors& tensors,
                                  const Ints& widths, const Ints& layout, int64_t nonlinearity,
                                  bool residual, bool exact, const Doubles& a, const Doubles& b,
                                  const Ints& outputs, int64_t checkpoint_every, int64_t penalties,
                                  int64_t operands, bool wanted) {
    const Call call{z,     h, probes, tensors, widths,           layout,    nonlinearity, residual,
                    exact, a, b,      outputs, checkpoint_every, penalties, operands};
    const GradOutputs grads{grad_z, grad_logp, grad_penalty, saved};
    if constexpr (Device::kDouble)
      if (z.scalar_type() == ScalarType::Double)
        return Device::template backward<double>(call, grads, wanted);
    check_dtype(z);
    return Device::template backward<float>(call, grads, wanted);
  }

 private:
  static void check_dtype(const Tensor& z) {
    require(z.scalar_type() == ScalarType::Float, "z must be float32",
            Device::kDouble ? " or float64" : " on a GPU");
  }
};

}  // namespace mvae_fast
