import Foundation

/// Whether the system allows so many threads more, all at a time, now.
package func canStartThreads(_ count: Int) -> Bool {
    let release = DispatchSemaphore(value: 0)
    let started = (0..<count).prefix { _ in startThread { release.wait() } }.count
    for _ in 0..<started { release.signal() }
    return started == count
}

/// Starts a thread that ends with `body`; false when the system allows no further one, as under a limit on processes. (Foundation's
/// `Thread` says nothing then, and Dispatch tries again for ever.)
package func startThread(_ body: @escaping @Sendable () -> Void) -> Bool {
    final class Box {
        let body: @Sendable () -> Void; init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    let box = Unmanaged.passRetained(Box(body))
    var thread = pthread_t()
    // 2 MiB of stack, where 8 are usual: under a limit of the address space all counts.
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setstacksize(&attributes, 2 << 20)
    let status = pthread_create(
        &thread, &attributes,
        { argument in
            Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
            return nil
        }, box.toOpaque())
    guard status == 0 else {
        box.release()
        return false
    }
    pthread_detach(thread)
    return true
}
