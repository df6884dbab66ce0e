// mvae_fast::search on the CPU: the steps that an embedded pair takes, by its estimate of the
// error, and where they lead. The backward is that of mvae_fast::solve over the same steps.

#include <algorithm>
#include <cmath>

#include "arguments.h"
#include "cpu/capability.h"

namespace mvae_fast {
namespace {

// States and log-density changes at the times after the first; what a backward over the steps will
// need, as mvae_fast::solve saves it, in the first numbers of a tensor; every step as a share of
// the interval between two times; and counts: of the steps in each interval, of the evaluations of
// the velocity, of the numbers that are saved.
using Found = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// How mvae_fast/core/adaptive.py, which also says what they mean, gives them.
struct Control {
  double rtol, atol, first_step, min_step, max_step, max_steps, safety, grow, shrink, order;
  bool last_is_first;

  explicit Control(const Doubles& x) {
    require(x.size() == 11, "control has ", x.size(), " entries, expected 11");
    rtol = x[0], atol = x[1], first_step = x[2], min_step = x[3], max_step = x[4];
    max_steps = x[5], safety = x[6], grow = x[7], shrink = x[8], order = x[9];
    last_is_first = x[10] != 0;
  }
  // By what to multiply a step of this error.
  double factor(double error) const {
    if (error == 0) return grow;
    const double least = error < 1 ? 1 : shrink;
    return std::min(grow, std::max(safety / std::pow(error, 1 / order), least));
  }
};

// The larger root mean square of the parts z and logp, of n rows; NaN if one is.
double larger_mean(double z, double logp, int64_t n, int64_t dim) {
  const double rows = static_cast<double>(n), columns = static_cast<double>(dim);
  const double of_z = std::sqrt(z / (rows * columns)), of_logp = std::sqrt(logp / rows);
  return of_z > of_logp || of_z != of_z ? of_z : of_logp;
}

template <class T>
class Search {
 public:
  // `budget`: bytes that may be kept for a backward beside the states; -1: there will be none.
  Search(const Call& call, const Doubles& times, const Doubles& nodes, const Doubles& error,
         const Control& control, int64_t budget)
      : call_(call),
        times_(times),
        nodes_(nodes),
        error_(error),
        control_(control),
        budget_(budget),
        checked_(check_call<T>(call)),
        p_(checked_.p) {
    require(p_.layers && !p_.features, "layout has no coefficients over 1 and t");
    require(p_.S == 1 && p_.R > 1 && p_.R <= kMostStages, "b has ", p_.R, " stages for ", p_.S,
            " steps, expected 2 to ", kMostStages, " for one");
    require(p_.operands <= Operands::bf16, "operands is neither 0 (full) nor 1 (bf16)");
    require(!p_.penalties && p_.checkpoint == 1, "a search takes no penalties and no checkpoints");
    require(times.size() >= 2, "times has ", times.size(), " entries, expected at least 2");
    require(nodes.size() == call.b.size() && error.size() == call.b.size(),
            "nodes and error must have an entry for each stage");
    B_ = p_.B, D_ = p_.widths[0];
    sign_ = times[1] > times[0] ? 1 : -1;
    for (size_t i = 1; i < times.size(); ++i)
      require(sign_ * (times[i] - times[i - 1]) > 0, "times must all ascend or all descend");
    stage_times_.resize(nodes.size());
    p_.h = &step_;
    p_.time = stage_times_.data();
    const size_t state = static_cast<size_t>(B_ * D_), rows = static_cast<size_t>(B_);
    for (std::vector<T>* x : {&z_, &z_next_, &k_, &k_next_}) x->resize(state);
    for (std::vector<T>* x : {&logp_, &logp_next_, &tau_, &tau_next_}) x->resize(rows);
    const T* z = data<T>(call.z);
    std::copy(z, z + state, z_.begin());
  }

  Found run() {
    const Threads threads = workers();
    const DenormalsAreZero mode;
    const Workspace scratch(kernels<T>().forward_workspace(p_, threads.n));
    threads_ = &threads;
    scratch_ = scratch.get();
    sums_.resize(static_cast<size_t>(2 * threads.n));

    const int64_t intervals = static_cast<int64_t>(times_.size()) - 1;
    Tensor z = new_tensor(call_.z, {intervals, B_, D_});
    Tensor logp = new_tensor(call_.z, {intervals, B_});
    Doubles shares;
    Ints counts;
    if (B_) {
      first_stage(times_[0]);
      double h = control_.first_step > 0 ? control_.first_step : initial_step();
      for (int64_t i = 0; i < intervals; ++i) {
        const size_t before = shares.size();
        h = interval(times_[static_cast<size_t>(i)], times_[static_cast<size_t>(i) + 1], h, shares);
        counts.push_back(static_cast<int64_t>(shares.size() - before));
        std::copy(z_.begin(), z_.end(), out<T>(z) + i * B_ * D_);
        std::copy(logp_.begin(), logp_.end(), out<T>(logp) + i * B_);
      }
    } else {  // of no rows any step is good enough
      shares.assign(static_cast<size_t>(intervals), 1);
      counts.assign(static_cast<size_t>(intervals), 1);
    }
    counts.push_back(evaluations_);
    const Tensor saved = save(static_cast<int64_t>(shares.size()), counts);
    return {z, logp, saved, to_tensor(shares, ScalarType::Double),
            to_tensor(counts, ScalarType::Long)};
  }

 private:
  Threads workers() const {
    double work = 0;
    for (int64_t l = 1; l <= p_.L; ++l)
      work += static_cast<double>(p_.widths[l]) * static_cast<double>(p_.widths[l - 1]);
    return threads_for(B_, work * static_cast<double>(B_ * p_.R));
  }

  // Rows of what is kept of a step, and how long one is.
  int64_t stages() const { return control_.last_is_first ? p_.R - 1 : p_.R; }
  int64_t kept_row() const { return size_product(B_, kept_numbers(p_)); }

  // Room for what is kept of the step after `steps_`, as long as the budget allows. The last stage
  // of a step that is the first one of the next is kept where that will look for it.
  void make_room() {
    if (budget_ <= 0 || steps_ < capacity_) return;
    const int64_t step = size_sum(size_product(stages(), kept_row()), size_product(B_, D_));
    const int64_t most = budget_ / static_cast<int64_t>(sizeof(T)) - kept_row();
    const int64_t wanted = std::min(std::max<int64_t>(4, 2 * capacity_), most / step);
    if (wanted <= steps_) {
      budget_ = 0;
      buffer_.reset();
      return;
    }
    const Tensor larger = in_huge_pages(new_tensor(call_.z, {wanted * step + kept_row()}));
    if (buffer_) {
      const T* const from = data<T>(*buffer_);
      std::copy(from, from + (steps_ * stages() + 1) * kept_row(), out<T>(larger));
    }
    buffer_ = larger;
    capacity_ = wanted;
  }

  // What is kept of the present step.
  T* kept() const { return buffer_ ? out<T>(*buffer_) + steps_ * stages() * kept_row() : nullptr; }

  // What is kept and the states between the steps, and how many numbers that is, to `counts`.
  Tensor save(int64_t steps, Ints& counts) {
    const int64_t states = budget_ < 0 || !B_ ? 0 : (steps - 1) * B_ * D_;
    const int64_t kept = buffer_ ? steps * stages() * kept_row() : 0;
    const Tensor saved = buffer_ ? *buffer_ : new_tensor(call_.z, {states});
    std::copy(states_.begin(), states_.begin() + states, out<T>(saved) + kept);
    counts.push_back(kept + states);
    return saved;
  }

  // Stages first .. last - 1 of a step of size h (signed) from time t; the error, if it is whole.
  double attempt(int64_t first, int64_t last, double t, double h, T* kept) {
    step_ = static_cast<T>(h);
    for (size_t r = 0; r < nodes_.size(); ++r) stage_times_[r] = static_cast<T>(t + nodes_[r] * h);
    kernels<T>().attempt(p_,
                         {first, last, packed_, error_.data(), control_.rtol, control_.atol,
                          z_.data(), logp_.data(), k_.data(), tau_.data(), z_next_.data(),
                          logp_next_.data(), k_next_.data(), tau_next_.data(), kept, sums_.data()},
                         *threads_, scratch_);
    packed_ = true;
    evaluations_ += last - first;
    double z = 0, logp = 0;
    for (size_t w = 0; w < sums_.size(); w += 2) {
      z += sums_[w];
      logp += sums_[w + 1];
    }
    return larger_mean(z, logp, B_, D_);
  }

  void first_stage(double t) {
    make_room();
    attempt(0, 1, t, 0, kept());
    std::swap(k_, k_next_);
    std::swap(tau_, tau_next_);
  }

  // The larger of the norms of z's and logp's part, over the tolerance at the start.
  double norm(const std::vector<T>& z, const std::vector<T>& logp) const {
    const auto squares = [&](const std::vector<T>& x, const std::vector<T>& start) {
      double total = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double q = x[i] / (control_.atol + control_.rtol * std::abs(double{start[i]}));
        total += q * q;
      }
      return total;
    };
    return larger_mean(squares(z, z_), squares(logp, logp_), B_, D_);
  }

  // Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4.
  double initial_step() {
    const double d0 = norm(z_, logp_), d1 = norm(k_, tau_);
    const double h0 = d0 < 1e-5 || d1 < 1e-5 ? 1e-6 : 0.01 * d0 / d1;
    const std::vector<T> z = z_, k = k_, tau = tau_;
    for (size_t i = 0; i < z.size(); ++i) z_[i] += static_cast<T>(sign_ * h0) * k[i];
    attempt(0, 1, times_[0] + sign_ * h0, 0, nullptr);
    z_ = z;
    for (size_t i = 0; i < k.size(); ++i) k_next_[i] -= k[i];
    for (size_t i = 0; i < tau.size(); ++i) tau_next_[i] -= tau[i];
    const double d2 = norm(k_next_, tau_next_) / h0, most = std::max(d1, d2);
    const double h1 =
        most <= 1e-15 ? std::max(1e-6, h0 * 1e-3) : std::pow(0.01 / most, 1 / control_.order);
    return std::min(100 * h0, h1);
  }

  // From `begin` to `end`, with steps of h at first; the step to go on with.
  double interval(double begin, double end, double h, Doubles& shares) {
    const double length = std::abs(end - begin);
    double t = begin;
    for (int64_t tried = 0; t != end; ++tried) {
      require(static_cast<double>(tried) < control_.max_steps, "max_num_steps: ", tried,
              " steps were tried from ", begin, " and led to ", t, " of ", end);
      require(h > 0, "the velocity is not finite at time ", t);
      const double wanted = std::max(std::min(h, control_.max_step), control_.min_step);
      const double left = std::abs(end - t);
      const bool ends = wanted >= left * (1 - 1e-9);
      const double step = ends ? left : wanted, next = ends ? end : t + sign_ * step;
      require(next != t && static_cast<T>(t) != static_cast<T>(next),
              "no step is small enough at time ", t, ": the state or the velocity is not finite, ",
              "or rtol and atol are too small for the dtype");
      make_room();
      const double error = attempt(1, p_.R, t, sign_ * step, kept());
      h = step * control_.factor(error);
      if (!(error <= 1) && step > control_.min_step) {
        if (!(h < step)) h = step * control_.shrink;  // of an error that is no number
        continue;
      }
      if (ends) h = std::max(h, wanted);
      shares.push_back(step / length);
      t = next;
      std::swap(z_, z_next_);
      std::swap(logp_, logp_next_);
      if (budget_ >= 0) states_.insert(states_.end(), z_.begin(), z_.end());
      ++steps_;
      if (control_.last_is_first) {
        std::swap(k_, k_next_);
        std::swap(tau_, tau_next_);
      } else if (t != times_.back()) {
        first_stage(t);
      }
    }
    return h;
  }

  template <class U>
  static Tensor to_tensor(const std::vector<U>& x, ScalarType dtype) {
    const int64_t size = static_cast<int64_t>(x.size()), one = 1;
    const int32_t type =
        dtype == ScalarType::Double ? aoti_torch_dtype_float64() : aoti_torch_dtype_int64();
    AtenTensorHandle made = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_empty_strided(1, &size, &one, type, aoti_torch_device_type_cpu(), -1, &made));
    Tensor tensor(made);
    std::copy(x.begin(), x.end(), static_cast<U*>(tensor.mutable_data_ptr()));
    return tensor;
  }

  const Call& call_;
  const Doubles &times_, &nodes_, &error_;
  const Control& control_;
  int64_t budget_;
  Checked<T> checked_;
  Problem<T>& p_;
  int64_t B_, D_, evaluations_ = 0, steps_ = 0, capacity_ = 0;
  std::optional<Tensor> buffer_;
  double sign_;
  bool packed_ = false;
  T step_ = 0;
  std::vector<T> stage_times_, z_, z_next_, k_, k_next_, logp_, logp_next_, tau_, tau_next_,
      states_;
  Doubles sums_;
  const Threads* threads_ = nullptr;
  void* scratch_ = nullptr;
};

Found search(const Tensor& z, const Tensor& h, const std::optional<Tensor>& probes,
             const Tensors& tensors, const Ints& widths, const Ints& layout, int64_t nonlinearity,
             bool residual, bool exact, const Doubles& a, const Doubles& b, int64_t operands,
             const Doubles& times, const Doubles& nodes, const Doubles& error,
             const Doubles& controls, int64_t budget) {
  const Ints outputs{1};
  const Call call{z,     h, probes, tensors, widths, layout, nonlinearity, residual,
                  exact, a, b,      outputs, 1,      0,      operands};
  const Control control(controls);
  if (z.scalar_type() == ScalarType::Double)
    return Search<double>(call, times, nodes, error, control, budget).run();
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return Search<float>(call, times, nodes, error, control, budget).run();
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(mvae_fast, m) {
  m.def(
      "search(Tensor z, Tensor h, Tensor? probes, Tensor[] tensors, int[] widths, int[] layout, "
      "int nonlinearity, bool residual, bool exact, float[] a, float[] b, int operands, "
      "float[] times, float[] nodes, float[] error, float[] controls, int budget) "
      "-> (Tensor z_out, Tensor logp_out, Tensor saved, Tensor shares, Tensor counts)");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CPU, m) {
  m.impl("search", TORCH_BOX(&mvae_fast::search));
}
