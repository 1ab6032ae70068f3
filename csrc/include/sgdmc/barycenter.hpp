// Debiased and entropic Sinkhorn barycenters of histograms on a line, eight problems at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "elementary.hpp"
#include "line_kernel.hpp"
#include "parallel.hpp"

namespace sgdmc {

namespace detail {

inline constexpr int kBlurStart = 20;    // iterations for the debiasing vector of the first guess
inline constexpr int kStartSteps = 3;    // Sinkhorn iterations with the first guess held fixed
inline constexpr double kStartMix = 1e-6;  // share of the blurred start, so that no bin is ruled out

}  // namespace detail

struct BarycenterSettings {
  std::size_t n, n_members;  // bins, members a problem
  double reg;
  bool debiased;
  double tol;
  std::int64_t max_iter;
};

// Exact W2 barycenter: mass between consecutive levels of any distribution function is spread evenly
// between the averaged quantiles.
inline void quantile_barycenter(const double* const* rows, const double* weights, std::size_t m,
                                std::size_t n, double* out) {
  std::vector<double> cumulated(m * (n + 1));
  std::vector<std::size_t> bin(m, 0);
  for (std::size_t k = 0; k < m; ++k) {
    double* c = cumulated.data() + k * (n + 1);
    for (std::size_t s = 0; s < n; ++s) c[s + 1] = c[s] + rows[k][s];
    const double total = c[n];
    for (std::size_t s = 0; s <= n; ++s) c[s] /= total;
  }
  std::fill(out, out + n, 0.0);
  for (double level = 0.0; level < 1.0;) {
    double next = 1.0, left = 0.0, right = 0.0;
    for (std::size_t k = 0; k < m; ++k) {
      const double* c = cumulated.data() + k * (n + 1);
      while (bin[k] + 1 < n && c[bin[k] + 1] <= level) ++bin[k];
      if (c[bin[k] + 1] > level) next = std::min(next, c[bin[k] + 1]);
    }
    for (std::size_t k = 0; k < m; ++k) {
      const double* c = cumulated.data() + k * (n + 1) + bin[k];
      const double height = c[1] - c[0], at = static_cast<double>(bin[k]);
      left += weights[k] * (at + (height > 0 ? std::clamp((level - c[0]) / height, 0.0, 1.0) : 0.0));
      right += weights[k] * (at + (height > 0 ? std::clamp((next - c[0]) / height, 0.0, 1.0) : 1.0));
    }
    const double mass = next - level, top = static_cast<double>(n);
    left = std::clamp(left, 0.0, top);
    right = std::clamp(right, left, top);
    std::size_t s = std::min(static_cast<std::size_t>(left), n - 1);
    if (right <= static_cast<double>(s + 1)) {
      out[s] += mass;
    } else {
      for (; s < n && static_cast<double>(s) < right; ++s) {
        const double part = std::min(right, static_cast<double>(s + 1)) - std::max(left, static_cast<double>(s));
        out[s] += mass * part / (right - left);
      }
    }
    level = next;
  }
}

namespace detail {

// Eight problems side by side.
class Group {
 public:
  Group(const BarycenterSettings& s, const LineKernel& kernel, const double* histograms,
        const std::int64_t* members, const double* weights, std::size_t first, std::size_t count)
      : s_(s), kernel_(kernel), count_(count) {
    const std::size_t n = s.n, m = s.n_members;
    const int length = kernel.length;
    target_ = {0, static_cast<int>((n + length - 1) / length)};
    weight_.assign(m, LaneLine{});
    tilt_.assign(1, LaneLine{});
    start_.assign(static_cast<std::size_t>(target_.count) * length, LaneLine{});
    std::vector<std::vector<std::int64_t>> offset(m, std::vector<std::int64_t>(kLanes));
    std::vector<const double*> rows(m);
    std::vector<double> guess(n), w(m);
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t p = first + std::min(l, count - 1);  // spare lanes repeat the last problem
      double centre = 0.0;
      std::vector<double> mean(m);
      for (std::size_t k = 0; k < m; ++k) {
        rows[k] = histograms + members[p * m + k] * n;
        w[k] = weights[p * m + k];
        weight_[k].value[l] = w[k];
        for (std::size_t v = 0; v < n; ++v) mean[k] += rows[k][v] * static_cast<double>(v);
        centre += w[k] * mean[k];
      }
      double drift = 0.0;
      for (std::size_t k = 0; k < m; ++k) {
        offset[k][l] = w[k] > 0 ? static_cast<std::int64_t>(std::nearbyint(mean[k] - centre)) : 0;
        drift += w[k] * static_cast<double>(offset[k][l]);
      }
      tilt_[0].value[l] = 2.0 * drift / kernel.scale;
      quantile_barycenter(rows.data(), w.data(), m, n, guess.data());
      for (std::size_t v = 0; v < n; ++v) start_[v].value[l] = guess[v];
    }
    // Sources, moved by whole bins onto the common centre, over the blocks that hold any of their mass.
    sources_.resize(m);
    for (std::size_t k = 0; k < m; ++k) {
      std::int64_t low = std::numeric_limits<std::int64_t>::max(), high = -low;
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double* row = histograms + members[(first + std::min(l, count - 1)) * m + k] * n;
        std::int64_t a = 0, b = static_cast<std::int64_t>(n) - 1;
        while (a < b && row[a] == 0) ++a;
        while (b > a && row[b] == 0) --b;
        low = std::min(low, a - offset[k][l]);
        high = std::max(high, b - offset[k][l]);
      }
      const auto block = [&](std::int64_t x) {
        return static_cast<int>(x >= 0 ? x / length : -((-x + length - 1) / length));
      };
      const BlockRange range{block(low), block(high) - block(low) + 1};
      sources_[k].resize(range, length);
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double* row = histograms + members[(first + std::min(l, count - 1)) * m + k] * n;
        for (std::int64_t v = 0; v < static_cast<std::int64_t>(n); ++v)
          if (row[v] > 0)
            sources_[k].value[v - offset[k][l] - std::int64_t{range.first} * length].value[l] = row[v];
      }
    }
    int low = 0, high = target_.count;
    for (const Scaled& source : sources_) {
      low = std::min(low, source.range.first);
      high = std::max(high, source.range.first + source.range.count);
    }
    const int blocks = high - low + 2 * kernel.margin;
    work_.middle.resize({0, blocks}, 4);
    work_.stage.resize(blocks);
    for (Scaled* x : {&d_, &kd_, &bary_}) x->resize(target_, length);
    b_.resize(m);
    ka_.resize(m);
    plan_.resize(m);
    for (std::size_t k = 0; k < m; ++k) {
      b_[k].resize(target_, length);
      ka_[k].resize(target_, length);
      plan_[k].resize(sources_[k].range, length);
    }
    log_bary_.assign(start_.size(), LaneLine{});
  }

  // Writes the histograms, iterations and residuals of the group's problems.
  void solve(double* out, std::int64_t* n_iter, double* residual, Stop& stop) {
    const std::size_t n = s_.n, m = s_.n_members;
    begin();
    bool done[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) done[l] = l >= count_;
    for (std::int64_t iteration = 1; iteration <= s_.max_iter; ++iteration) {
      if (stop.requested()) throw Interrupted();
      for (std::size_t k = 0; k < m; ++k) half_step(k);
      Lanes error;
      combine(error);
      bool waiting = false;
      for (std::size_t l = 0; l < count_; ++l) {
        if (done[l]) continue;
        n_iter[l] = iteration;
        residual[l] = error[l];
        done[l] = error[l] <= s_.tol;
        waiting |= !done[l];
        if (done[l] || iteration == s_.max_iter) {
          double total = 0.0;
          for (std::size_t v = 0; v < n; ++v) total += start_[v].value[l];
          for (std::size_t v = 0; v < n; ++v) out[l * n + v] = start_[v].value[l] / total;
        }
      }
      if (!waiting) return;
    }
  }

 private:
  const BarycenterSettings& s_;
  const LineKernel& kernel_;
  std::size_t count_;
  BlockRange target_;
  LaneArray weight_, tilt_, start_, log_bary_;  // start_ also holds the present barycenter
  std::vector<Scaled> sources_, b_, ka_, plan_;
  Scaled d_, kd_, bary_;
  LineKernel::Scratch work_;

  // From logarithms, one a bin, to blocks.
  SGDMC_INLINE void from_log(const Lanes* x, Scaled& out) const {
    const int length = kernel_.length;
    Lanes *value = lanes(out.value), *offset = lanes(out.offset);
    for (int i = 0; i < target_.count; ++i) {
      Lanes top = all(kNothing);
      for (int v = 0; v < length; ++v) top = max(top, x[i * length + v]);
      const auto none = top < 0.5 * kNothing;
      const Lanes e = none ? Lanes{} : ((top / kLog2) + kRound) - kRound;
      offset[i] = none ? all(kNothing) : e;
      for (int v = 0; v < length; ++v) value[i * length + v] = exp(x[i * length + v] - e * kLog2);
    }
  }

  // a_k = alpha_k / (K b_k), then K^T a_k.
  void half_step(std::size_t k) {
    kernel_.apply(b_[k], plan_[k], work_);
    dispatch([&](auto) SGDMC_BODY { divide_sources(k); });
    kernel_.apply(plan_[k], ka_[k], work_);
  }
  SGDMC_INLINE void divide_sources(std::size_t k) {
    Scaled& a = plan_[k];
    const Lanes* source = lanes(sources_[k].value);
    Lanes *value = lanes(a.value), *offset = lanes(a.offset);
    const int length = kernel_.length;
    for (int i = 0; i < a.range.count; ++i) {
      offset[i] = -offset[i];
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes x = max(value[v], all(0x1p-1000));
        value[v] = source[v] > 0.0 ? source[v] / x : Lanes{};
      }
    }
    a.normalise(a.range.count, length);
  }

  // b_k = alpha / (K^T a_k) for alpha in blocks.
  SGDMC_INLINE void back_step(std::size_t k) {
    const Lanes *alpha = lanes(bary_.value), *alpha_offset = lanes(bary_.offset);
    const Lanes *ka = lanes(ka_[k].value), *ka_offset = lanes(ka_[k].offset);
    Lanes *b = lanes(b_[k].value), *b_offset = lanes(b_[k].offset);
    const int length = kernel_.length;
    for (int i = 0; i < target_.count; ++i) {
      const auto none = (alpha_offset[i] < 0.5 * kNothing) | (ka_offset[i] < 0.5 * kNothing);
      b_offset[i] = none ? all(kNothing) : alpha_offset[i] - ka_offset[i];
      for (int v = i * length; v < (i + 1) * length; ++v)
        b[v] = ka[v] > 0x1p-1000 ? alpha[v] / ka[v] : Lanes{};
    }
    b_[k].normalise(target_.count, length);
  }

  // d <- sqrt(d alpha / (K d)); returns the sum over bins of |alpha - d K d|.
  void debias(Lanes& error) {
    kernel_.apply(d_, kd_, work_);
    dispatch([&](auto) SGDMC_BODY { error = update_debiasing(); });
  }
  SGDMC_INLINE Lanes update_debiasing() {
    const Lanes *alpha = lanes(bary_.value), *alpha_offset = lanes(bary_.offset);
    const Lanes *kd = lanes(kd_.value), *kd_offset = lanes(kd_.offset);
    Lanes *d = lanes(d_.value), *d_offset = lanes(d_.offset);
    const int length = kernel_.length;
    Lanes error{};
    for (int i = 0; i < target_.count; ++i) {
      const auto none = (alpha_offset[i] < 0.5 * kNothing) | (d_offset[i] < 0.5 * kNothing);
      const Lanes half = none ? Lanes{} : 0.5 * (d_offset[i] + alpha_offset[i] - kd_offset[i]);
      const Lanes whole = (half + kRound) - kRound;  // half - whole is 0 or +-1/2
      const Lanes root = half > whole   ? all(0x1.6a09e667f3bcdp+0)
                         : half < whole ? all(0x1.6a09e667f3bcdp-1)
                                        : all(1.0);
      const Lanes mine = pow2(none ? all(kNothing) : alpha_offset[i]);
      const Lanes other = pow2(none ? all(kNothing) : d_offset[i] + kd_offset[i]);
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes gap = alpha[v] * mine - (d[v] * kd[v]) * other;
        error += gap < 0.0 ? -gap : gap;
        const Lanes ratio = kd[v] > 0x1p-1000 ? d[v] * (alpha[v] / kd[v]) : Lanes{};
        for (int l = 0; l < kLanes; ++l) d[v][l] = __builtin_sqrt(ratio[l]);
        d[v] = d[v] * root;
      }
      d_offset[i] = none ? all(kNothing) : whole;
    }
    d_.normalise(target_.count, length);
    return error;
  }

  // The new barycenter from all K^T a_k, its residual, and the new b_k and d.
  void combine(Lanes& error) {
    dispatch([&](auto) SGDMC_BODY { error = new_barycenter(); });
    dispatch([&](auto) SGDMC_BODY {
      for (std::size_t k = 0; k < s_.n_members; ++k) {
        error = detail::max(error, shortfall(k));
        back_step(k);
      }
    });
    if (s_.debiased) {
      Lanes gap;
      debias(gap);
      error = detail::max(error, gap);
    }
  }
  SGDMC_INLINE Lanes new_barycenter() {
    const std::size_t m = s_.n_members;
    const int length = kernel_.length;
    const int n = static_cast<int>(s_.n);
    Lanes* x = lanes(log_bary_);
    const Lanes* weight = lanes(weight_);
    const Lanes slope = lanes(tilt_)[0];
    const Lanes *d = lanes(d_.value), *d_offset = lanes(d_.offset);
    Lanes top = all(kNothing);
    for (int i = 0; i < target_.count; ++i)
      for (int v = i * length; v < (i + 1) * length; ++v) {
        Lanes sum = static_cast<double>(v) * slope;
        if (s_.debiased) sum += log(d[v]) + d_offset[i] * kLog2;
        for (std::size_t k = 0; k < m; ++k) {
          const Lanes part = log(lanes(ka_[k].value)[v]) + lanes(ka_[k].offset)[i] * kLog2;
          sum += weight[k] > 0.0 ? weight[k] * part : Lanes{};
        }
        x[v] = v < n ? max(sum, all(kNothing)) : all(kNothing);
        top = max(top, x[v]);
      }
    Lanes total{};
    for (int v = 0; v < n; ++v) total += exp(x[v] - top);
    const Lanes norm = top + log(total);
    for (int v = 0; v < target_.count * length; ++v) x[v] = max(x[v] - norm, all(kNothing));
    from_log(x, bary_);
    Lanes moved{};
    Lanes* now = lanes(start_);
    const Lanes *alpha = lanes(bary_.value), *alpha_offset = lanes(bary_.offset);
    for (int i = 0; i < target_.count; ++i) {
      const Lanes unit = pow2(alpha_offset[i]);
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes fresh = alpha[v] * unit, gap = fresh - now[v];
        moved += gap < 0.0 ? -gap : gap;
        now[v] = fresh;
      }
    }
    return moved;
  }

  // Twice what the second marginal b_k K^T a_k falls short of the barycenter by.
  SGDMC_INLINE Lanes shortfall(std::size_t k) const {
    const int length = kernel_.length;
    Lanes missing{};
    const Lanes* now = lanes(start_);
    const Lanes *ka = lanes(ka_[k].value), *ka_offset = lanes(ka_[k].offset);
    const Lanes *b = lanes(b_[k].value), *b_offset = lanes(b_[k].offset);
    for (int i = 0; i < target_.count; ++i) {
      const Lanes sum = b_offset[i] + ka_offset[i];
      const Lanes unit = pow2(sum < 0.5 * kNothing ? all(kNothing) : sum);
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes gap = now[v] - (b[v] * ka[v]) * unit;
        missing += gap > 0.0 ? gap : Lanes{};
      }
    }
    return lanes(weight_)[k] > 0.0 ? 2.0 * missing : Lanes{};
  }

  // First guess: the exact W2 barycenter with a trace of its blurred self, and potentials that fit it.
  void begin() {
    dispatch([&](auto) SGDMC_BODY { constant(d_); });
    kernel_.apply(d_, kd_, work_);  // K 1
    dispatch([&](auto) SGDMC_BODY { divide_guess(); });
    kernel_.apply(d_, kd_, work_);
    dispatch([&](auto) SGDMC_BODY {
      mix_guess();
      constant(d_);
    });
    Lanes unused;
    if (s_.debiased)
      for (int i = 0; i < kBlurStart; ++i) debias(unused);
    for (std::size_t k = 0; k < s_.n_members; ++k) {
      dispatch([&](auto) SGDMC_BODY { first_scaling(k); });
      for (int i = 0; i < kStartSteps; ++i) {
        half_step(k);
        dispatch([&](auto) SGDMC_BODY { back_step(k); });
      }
    }
  }
  SGDMC_INLINE void constant(Scaled& out) const {
    Lanes *value = lanes(out.value), *offset = lanes(out.offset);
    for (int i = 0; i < target_.count; ++i) offset[i] = Lanes{};
    for (int v = 0; v < target_.count * kernel_.length; ++v)
      value[v] = v < static_cast<int>(s_.n) ? all(1.0) : Lanes{};
  }
  SGDMC_INLINE void divide_guess() {
    const int length = kernel_.length;
    const Lanes *guess = lanes(start_), *kd = lanes(kd_.value), *kd_offset = lanes(kd_.offset);
    Lanes* d = lanes(d_.value);
    for (int v = 0; v < static_cast<int>(s_.n); ++v)
      d[v] = guess[v] / (kd[v] * pow2(kd_offset[v / length]));
    d_.normalise(target_.count, length);
  }
  SGDMC_INLINE void mix_guess() {
    const int length = kernel_.length, n = static_cast<int>(s_.n);
    const Lanes *kd = lanes(kd_.value), *kd_offset = lanes(kd_.offset);
    Lanes *guess = lanes(start_), *x = lanes(log_bary_);
    for (int v = 0; v < target_.count * length; ++v) {
      const Lanes offset = kd_offset[v / length];
      const Lanes blurred = kd[v] * pow2(offset < 0.5 * kNothing ? all(kNothing) : offset);
      guess[v] = v < n ? (1.0 - kStartMix) * guess[v] + kStartMix * (blurred + 1e-6 / n) : Lanes{};
      x[v] = log(guess[v]);
    }
    from_log(x, bary_);
  }
  SGDMC_INLINE void first_scaling(std::size_t k) {
    const int length = kernel_.length, n = static_cast<int>(s_.n);
    const Lanes slope = lanes(tilt_)[0];
    const Lanes *d = lanes(d_.value), *d_offset = lanes(d_.offset);
    Lanes* x = lanes(log_bary_);
    for (int v = 0; v < target_.count * length; ++v)
      x[v] = v < n ? (log(d[v]) + d_offset[v / length] * kLog2) - static_cast<double>(v) * slope : all(kNothing);
    from_log(x, b_[k]);
  }
};

}  // namespace detail

// Barycenter p of the histograms members[p * m ..] with weights[p * m ..], for each p < n_problems: out is
// (n_problems, n), n_iter and residual (n_problems,).
inline void sinkhorn_barycenters(const BarycenterSettings& s, const double* histograms,
                                 std::size_t n_problems, const std::int64_t* members,
                                 const double* weights, double* out, std::int64_t* n_iter,
                                 double* residual, int n_threads, Stop& stop) {
  const double scale = static_cast<double>(s.n) * static_cast<double>(s.n) * s.reg;
  const int length = LineKernel::length_of(scale);
  const LineKernel kernel(scale, static_cast<int>(3 * s.n / length) + 4);
  parallel_for((n_problems + kLanes - 1) / kLanes, n_threads, stop, [&](std::size_t g) {
    const std::size_t first = g * kLanes, count = std::min<std::size_t>(kLanes, n_problems - first);
    detail::Group group(s, kernel, histograms, members, weights, first, count);
    group.solve(out + first * s.n, n_iter + first, residual + first, stop);
  });
}

}  // namespace sgdmc
