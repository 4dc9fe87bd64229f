import Foundation
import TensorCore

/// Threads that sleep until there is work, started once. Dispatch starts its threads when work comes, and waits for ever for one that
/// a limit on processes forbids.
final class ThreadPool: Sendable {
    /// How many work at most, the caller among them.
    let count: Int
    private let state: State

    /// `count` threads with the caller, or as many as the system allows.
    init(_ count: Int) {
        let state = State()
        self.state = state
        self.count = 1 + (1..<max(1, count)).prefix { _ in startThread(state.work) }.count
    }

    deinit { state.stop() }

    /// Calls `body` on the caller and on up to `count` − 1 other threads, which come as they wake; when the caller's call returns, none
    /// comes any more, and those that came are waited for. `body` takes its share of the work itself.
    ///
    /// Two callers at a time: the second works alone.
    func run(on count: Int, _ body: () -> Void) {
        withoutActuallyEscaping(body) { body in
            withUnsafePointer(to: body) { state.run($0, helpers: min(count, self.count) - 1) }
        }
    }

    /// What the threads share; `lock` guards every `var`.
    private final class State: @unchecked Sendable {
        private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
        private let wake = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
        private let done = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
        private var job: UnsafePointer<() -> Void>?
        /// Threads that may still take up the job, and threads at it.
        private var (wanted, working) = (0, 0)
        private var isStopped = false

        init() {
            pthread_mutex_init(lock, nil)
            pthread_cond_init(wake, nil)
            pthread_cond_init(done, nil)
        }

        deinit {
            pthread_cond_destroy(wake)
            pthread_cond_destroy(done)
            pthread_mutex_destroy(lock)
            wake.deallocate()
            done.deallocate()
            lock.deallocate()
        }

        func run(_ job: UnsafePointer<() -> Void>, helpers: Int) {
            pthread_mutex_lock(lock)
            guard self.job == nil, helpers > 0 else {
                pthread_mutex_unlock(lock)
                return State.call(job)
            }
            self.job = job
            wanted = helpers
            pthread_mutex_unlock(lock)
            for _ in 0..<helpers { pthread_cond_signal(wake) }
            State.call(job)
            pthread_mutex_lock(lock)
            wanted = 0
            while working > 0 { pthread_cond_wait(done, lock) }
            self.job = nil
            pthread_mutex_unlock(lock)
        }

        /// A thread's life.
        func work() {
            pthread_mutex_lock(lock)
            while true {
                while wanted == 0 && !isStopped { pthread_cond_wait(wake, lock) }
                if isStopped { break }
                wanted -= 1
                working += 1
                let job = job!
                pthread_mutex_unlock(lock)
                State.call(job)
                pthread_mutex_lock(lock)
                working -= 1
                if working == 0 { pthread_cond_signal(done) }
            }
            pthread_mutex_unlock(lock)
        }

        /// A function of its own, after which nothing of the closure is held: the caller's ends when the threads have come back.
        @inline(never)
        private static func call(_ job: UnsafePointer<() -> Void>) { job.pointee() }

        func stop() {
            pthread_mutex_lock(lock)
            isStopped = true
            pthread_cond_broadcast(wake)
            pthread_mutex_unlock(lock)
        }
    }
}
